//! `steptime`: predicts the step time and peak memory of a deep-learning training run.
//!
//! The binary parses the command line, calls the libraries, prints, and sets the exit code: 0 done (and fits),
//! 1 ran but the verdict is no, 2 the input is wrong.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "speaking to the user is what the binary is for; the libraries never do"
)]

mod cli;
mod color;
mod commands;
mod failure;
mod output;
mod present;
#[cfg(feature = "serve")]
mod serve;

use std::hint::black_box;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

/// Has the C library keep what is freed for what is asked for next, instead of giving it to the system and asking for it
/// anew, page by page: a sweep frees and asks for megabytes at each of its points. glibc learns from the largest block that
/// it has seen go, up to 32 MiB, what is worth to keep (`M_MMAP_THRESHOLD` in its manual). The block is never written to,
/// so that it takes no memory; elsewhere it changes nothing.
fn keep_freed_memory() {
    let mut block: Vec<u8> = Vec::new();
    // Where there is no room for it there is none to be kept.
    let _ = block.try_reserve_exact(31 << 20);
    drop(black_box(block));
}

fn main() -> ExitCode {
    keep_freed_memory();
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Run(arguments) => commands::run::run(&arguments),
        Command::Sweep(arguments) => commands::sweep::sweep(&arguments),
        Command::Merge(arguments) => commands::sweep::merge(&arguments),
        Command::Search(arguments) => commands::search::search(&arguments),
        Command::Sensitivity(arguments) => commands::compare::sensitivity(&arguments),
        Command::Diff(arguments) => commands::compare::diff(&arguments),
        Command::Check(arguments) => commands::check::check(&arguments),
        Command::Goodput(arguments) => commands::goodput::goodput(&arguments),
        Command::Models(arguments) => commands::models::models(&arguments),
        Command::Clusters(arguments) => commands::clusters::clusters(&arguments),
        Command::MaxBatch(arguments) => commands::max_batch::max_batch(&arguments),
        Command::Validate(arguments) => commands::validate::validate(&arguments),
        Command::Calibrate(arguments) => commands::calibrate::calibrate(&arguments),
        #[cfg(feature = "serve")]
        Command::Serve(arguments) => serve::serve(&arguments),
        Command::Plot(arguments) => commands::plot::plot(&arguments),
        Command::Import(arguments) => commands::import::import(&arguments),
        Command::Replay(arguments) => commands::replay::replay(&arguments),
        Command::Completions(arguments) => commands::completions::completions(&arguments),
    };
    match done {
        Ok(verdict) => verdict.into(),
        Err(failure) => {
            // Where nobody listens there is nobody to be told that.
            let _ = output::remark(&format!("error: {failure}\n"));
            ExitCode::from(2)
        }
    }
}
