//! What can be doubtful about a result that is there. Each result carries its warnings; an input of which nothing can be used is an error
//! instead.

/// The code of a warning; it never changes. `TASKS.md` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WarningCode {
    /// A recording's channels cancel each other out.
    AudioChannels,
    /// Parts of a recording could not be decoded, or are missing at its end.
    AudioDamaged,
    /// A recording is longer than its header says.
    AudioLength,
    /// A recording is so quiet that words are missed.
    AudioQuiet,
    /// Samples are NaN, infinite or far beyond full scale.
    AudioSamples,
    /// Samples are in another scale.
    AudioScale,
    /// A recording holds silence only.
    AudioSilent,
    /// A file has several tracks with sound.
    AudioTracks,
    /// Parts of a picture could not be decoded.
    PictureDamaged,
    /// Lines of text are too low to be read for sure.
    PictureLinesSmall,
    /// A task took the first page of several.
    PicturePagesLeftOut,
    /// Pages could not be decoded, where others could.
    PicturePagesUnread,
    /// A page was looked at in a size in which small print is not seen.
    PictureShrunk,
    /// A text's encoding was guessed.
    TextEncoding,
    /// A text has bytes that are no characters.
    TextDamaged,
    /// A model knows few words of a text.
    TextUnknown,
    /// Tags, emoji or codes of a text were not said.
    SpeechLeftOut,
    /// Words in letters of another language were not said.
    SpeechScript,
    /// Much of a text was not said.
    SpeechIncomplete,
}

impl WarningCode {
    /// All codes, in the order of the page.
    pub const ALL: [Self; 19] = [
        Self::AudioChannels,
        Self::AudioDamaged,
        Self::AudioLength,
        Self::AudioQuiet,
        Self::AudioSamples,
        Self::AudioScale,
        Self::AudioSilent,
        Self::AudioTracks,
        Self::PictureDamaged,
        Self::PictureLinesSmall,
        Self::PicturePagesLeftOut,
        Self::PicturePagesUnread,
        Self::PictureShrunk,
        Self::TextEncoding,
        Self::TextDamaged,
        Self::TextUnknown,
        Self::SpeechLeftOut,
        Self::SpeechScript,
        Self::SpeechIncomplete,
    ];

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
            Self::AudioChannels => (
                "audio.channels",
                "its channels cancel each other out, so that one of them alone was used",
            ),
            Self::AudioDamaged => (
                "audio.damaged",
                "parts of the recording could not be decoded, or are missing at its end",
            ),
            Self::AudioLength => {
                ("audio.length", "the recording is longer than its header says; all of it was used")
            }
            Self::AudioQuiet => {
                ("audio.quiet", "the recording is so quiet that words may be missing")
            }
            Self::AudioSamples => (
                "audio.samples",
                "samples that are not numbers, or far beyond full scale, were silenced",
            ),
            Self::AudioScale => (
                "audio.scale",
                "floating-point samples are in the scale of integers, and were scaled",
            ),
            Self::AudioSilent => ("audio.silent", "the recording holds silence only"),
            Self::AudioTracks => (
                "audio.tracks",
                "the file has several tracks with sound, of which the first was used",
            ),
            Self::PictureDamaged => {
                ("picture.damaged", "parts of the picture could not be decoded and are blank")
            }
            Self::PictureLinesSmall => {
                ("picture.lines_small", "lines of text are so low that they may be misread")
            }
            Self::PicturePagesLeftOut => {
                ("picture.pages_left_out", "the file has more pages than the one that was used")
            }
            Self::PicturePagesUnread => {
                ("picture.pages_unread", "pages could not be decoded and were left out")
            }
            Self::PictureShrunk => (
                "picture.shrunk",
                "text was looked for in a smaller copy of the picture, so that small print may be missing",
            ),
            Self::TextEncoding => {
                ("text.encoding", "the text is not in Unicode, and its encoding was guessed")
            }
            Self::TextDamaged => {
                ("text.damaged", "bytes of the text are not characters, and were replaced")
            }
            Self::TextUnknown => {
                ("text.unknown", "the model does not know half of the text's words or more")
            }
            Self::SpeechLeftOut => {
                ("speech.left_out", "tags, emoji or terminal codes of the text were not said")
            }
            Self::SpeechScript => {
                ("speech.script", "words in letters of another language were not said")
            }
            Self::SpeechIncomplete => {
                ("speech.incomplete", "less than nine tenths of the text were said")
            }
        }
    }
}
