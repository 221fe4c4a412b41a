//! What a table says and its source does not: numbers that were filled in when the table was made, and that what the
//! source prints contradicts.
//!
//! A correction belongs to a publication, rests on what that publication prints, and never looks at a prediction.

use super::measurement::Measurement;

/// A number of a publication's rows.
struct Correction {
    /// What the citation of the rows contains.
    publication: &'static str,
    /// Vocabulary that the table has, and the one that the publication's numbers follow from.
    vocabulary: [u64; 2],
    /// Why.
    evidence: &'static str,
}

const CORRECTIONS: [Correction; 1] = [Correction {
    publication: "arXiv 2401.10241",
    vocabulary: [51_200, 32_000],
    evidence: "the paper names no vocabulary; its models' sizes (table 3: 1.5B, 6.2B, 14.6B, 28.3B) are those of 32,000 \
               classes, the published code's SentencePiece tokenizer, and not of GPT-2's 51,200 (14.7B, 28.4B)",
}];

/// Corrects a row; returns the evidence where there was something to correct.
pub(super) fn correct(row: &mut Measurement) -> Option<&'static str> {
    let applies =
        |it: &&Correction| row.source.contains(it.publication) && row.vocab == Some(it.vocabulary[0]);
    let correction = CORRECTIONS.iter().find(applies)?;
    row.vocab = Some(correction.vocabulary[1]);
    Some(correction.evidence)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Billions of parameters of a GPT of so many layers and channels, one embedding for input and output, in tenths.
    fn tenths_of_billions(layers: u64, hidden: u64, vocabulary: u64) -> u64 {
        let blocks = layers * (12 * hidden * hidden + 13 * hidden);
        (blocks + (vocabulary + 1024) * hidden + 50_000_000) / 100_000_000
    }

    /// Qi et al. 2024, table 3: names, layers and hidden sizes of the four models.
    #[test]
    fn the_sizes_of_the_zero_bubble_models_are_those_of_32_thousand_classes() {
        let models = [(15, 22, 2304), (62, 30, 4096), (146, 46, 5120), (283, 62, 6144)];
        let [table, corrected] = CORRECTIONS[0].vocabulary;
        let fits = |vocabulary| {
            models.iter().filter(|(name, l, h)| tenths_of_billions(*l, *h, vocabulary) == *name).count()
        };
        assert_eq!(fits(corrected), 4);
        assert!(fits(table) <= 2, "two of the names contradict the table");
    }

    #[test]
    fn only_the_number_that_was_filled_in_is_replaced() {
        let row = |source: &str, vocab| Measurement {
            source: source.to_owned(),
            vocab: Some(vocab),
            ..Measurement::default()
        };
        let paper = "Zero Bubble Pipeline Parallelism, arXiv 2401.10241 T4";
        for (source, stated, used) in
            [(paper, 51_200, 32_000), (paper, 65_536, 65_536), ("another, arXiv 2104.04473", 51_200, 51_200)]
        {
            let mut it = row(source, stated);
            assert_eq!(correct(&mut it).is_some(), stated != used);
            assert_eq!(it.vocab, Some(used));
        }
    }
}
