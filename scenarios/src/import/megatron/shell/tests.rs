//! Words as a shell would see them.

use super::*;

/// The words of the last command, unknown ones with a question mark.
fn last(script: &str) -> Vec<String> {
    let source = Source::new("x", script);
    let commands = commands(&source, &mut Log::default()).unwrap();
    let shown = |word: &Word| format!("{}{}", word.text, if word.known { "" } else { "?" });
    commands.last().map(|words| words.iter().map(shown).collect()).unwrap_or_default()
}

#[test]
fn quotes_and_escapes_make_words() {
    assert_eq!(last("a 'b  c' \"d e\"f g\\ h \\\n i # j"), ["a", "b  c", "d ef", "g h", "i"]);
    assert_eq!(last("a \"\" '' b"), ["a", "", "", "b"]);
    assert_eq!(last("a\"\\$x\\\"\" 'no $x'"), ["a$x\"", "no $x"]);
}

#[test]
fn expansions_split_outside_of_quotes_only() {
    assert_eq!(last("X=' a  b '\nrun $X\"$X\"${X}c"), ["run", "a", "b", " a  b ", "a", "b", "c"]);
    assert_eq!(last("A=(a 'b c')\nA+=(d)\nrun ${A[@]}"), ["run", "a", "b", "c", "d"]);
    assert_eq!(last("A=(a 'b c')\nrun \"${A[@]}\" $A"), ["run", "a", "b c", "a"]);
    assert_eq!(last("A=()\nrun \"${A[@]}\" x"), ["run", "x"]);
    assert_eq!(last("run ${N:-8} ${M:-\"a b\"} --x=${N:-1}"), ["run", "8", "a b", "--x=1"]);
}

#[test]
fn arithmetic_is_that_of_whole_numbers() {
    assert_eq!(
        last("G=8\nN=3\nrun $((G * N)) $(($G/3)) $((G*N/5)) $((G/N*2))"),
        ["run", "24", "2", "4", "$(...)?"]
    );
}

#[test]
fn what_only_the_shell_knows_is_unknown() {
    assert_eq!(
        last("run $1 $UNSET `ls` $(ls) ${A%x} $?"),
        ["run", "$1?", "$UNSET?", "`...`?", "$(...)?", "${A}?", "$??"]
    );
    // The variable is set, but what is asked of it is for the shell.
    assert_eq!(last("A=ab\nrun ${A%b} ${#A}"), ["run", "${A}?", "${}?"]);
}

#[test]
fn operators_end_commands_and_redirections_take_their_targets() {
    assert_eq!(last("run a > log 2>&1"), ["run", "a"]);
    assert_eq!(last("first; run a | tee x"), ["tee", "x"]);
    assert_eq!(last("if [ $X ]; then A=1; fi\nrun $A"), ["run", "$A?"]);
}

#[test]
fn what_is_not_closed_is_an_error() {
    for script in ["a 'b", "a \"b", "A=(a", "a ${b", "a $(b", "a `b", "a ${b:-c"] {
        assert!(commands(&Source::new("x", script), &mut Log::default()).is_err(), "{script}");
    }
    let doubling = format!("A=xx\n{}", "A=$A$A\n".repeat(64));
    assert!(commands(&Source::new("x", &doubling), &mut Log::default()).is_err());
}
