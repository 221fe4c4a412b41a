//! Widths of figures: columns and text blocks of the venues that papers on this go to.

/// Width of a figure in a paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Width {
    /// One column of two: 3.33 inches.
    OneColumn,
    /// Across both columns: 7 inches.
    TwoColumn,
    /// The one column of NeurIPS: 5.5 inches (`neurips_2024.sty`, "The text must be confined within a rectangle 5.5 inches
    /// wide").
    Neurips,
    /// A column of ICML: 3.25 inches (`icml2024.sty`, `columnsep` 0.25 in of 6.75 in).
    IcmlColumn,
    /// Both columns of ICML: 6.75 inches.
    IcmlWide,
    /// A column of IEEE's journals and conferences: 3.5 inches, 21 picas (IEEE Author Center, "Resolution and size").
    IeeeColumn,
    /// Both columns of IEEE: 7.16 inches, 43 picas.
    IeeeWide,
    /// A column of ACM's `sigconf`: 241.15 pt, 3.34 inches (`acmart.cls`).
    AcmColumn,
    /// Both columns of ACM's `sigconf`: 506.30 pt, 7 inches.
    AcmWide,
    /// A column of USENIX: 3.33 inches (`usenix-2020-09.sty`, 7 in of text with 0.33 in between the columns).
    UsenixColumn,
    /// Both columns of USENIX: 7 inches.
    UsenixWide,
}

impl Width {
    /// All widths.
    pub const ALL: [Self; 11] = [
        Self::OneColumn,
        Self::TwoColumn,
        Self::Neurips,
        Self::IcmlColumn,
        Self::IcmlWide,
        Self::IeeeColumn,
        Self::IeeeWide,
        Self::AcmColumn,
        Self::AcmWide,
        Self::UsenixColumn,
        Self::UsenixWide,
    ];

    /// The name in commands.
    pub fn name(self) -> &'static str {
        match self {
            Self::OneColumn => "one-column",
            Self::TwoColumn => "two-column",
            Self::Neurips => "neurips",
            Self::IcmlColumn => "icml-column",
            Self::IcmlWide => "icml-wide",
            Self::IeeeColumn => "ieee-column",
            Self::IeeeWide => "ieee-wide",
            Self::AcmColumn => "acm-column",
            Self::AcmWide => "acm-wide",
            Self::UsenixColumn => "usenix-column",
            Self::UsenixWide => "usenix-wide",
        }
    }

    /// Inches.
    pub fn inches(self) -> f64 {
        match self {
            Self::OneColumn | Self::UsenixColumn => 3.33,
            Self::TwoColumn | Self::AcmWide | Self::UsenixWide => 7.0,
            Self::Neurips => 5.5,
            Self::IcmlColumn => 3.25,
            Self::IcmlWide => 6.75,
            Self::IeeeColumn => 3.5,
            Self::IeeeWide => 7.16,
            // 241.15 TeX points of 1/72.27 inch.
            Self::AcmColumn => 3.34,
        }
    }

    /// Whether it is broad enough for two panels beside each other.
    pub(crate) fn is_wide(self) -> bool {
        self.inches() > 5.0
    }
}
