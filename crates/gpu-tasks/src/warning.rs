//! What can be doubtful about a result that is there. Each result carries its warnings; an input of which nothing can be used is an error
//! instead.

/// The code of a warning; it never changes. `TASKS.md` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WarningCode {
    /// A recording is so quiet that words are missed.
    AudioQuiet,
    /// A recording holds silence only.
    AudioSilent,
}

impl WarningCode {
    /// All codes, in the order of the page.
    pub const ALL: [Self; 2] = [Self::AudioQuiet, Self::AudioSilent];

    /// As results show it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.described().0
    }

    /// What it means, for users.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        self.described().1
    }

    fn described(self) -> (&'static str, &'static str) {
        match self {
            Self::AudioQuiet => {
                ("audio.quiet", "the recording is so quiet that words may be missing")
            }
            Self::AudioSilent => ("audio.silent", "the recording holds silence only"),
        }
    }
}
