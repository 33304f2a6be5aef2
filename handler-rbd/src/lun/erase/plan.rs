//! What an erasure is to do, as a value and as the note that is kept with the image.

use crate::scsi::Sense;

/// Most passes that OVERWRITE COUNT can say.
const MAX_PASSES: u8 = 31;

/// The command that an erasure is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lun) enum Cause {
    /// FORMAT UNIT.
    Format,
    /// SANITIZE.
    Sanitize {
        /// AUSE: EXIT FAILURE MODE may end a failure.
        unrestricted: bool,
    },
}

/// What blocks are to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::lun) enum Content {
    /// Zeros, in space given back where that can be.
    Zeroes,
    /// Repetitions of a pattern, from each block's start on, written.
    Pattern {
        /// The pattern; not empty.
        bytes: Vec<u8>,
        /// Whether every other pass writes the inverted pattern.
        invert: bool,
        /// How often it is written.
        passes: u8,
    },
}

/// An erasure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::lun) struct Plan {
    pub(in crate::lun) cause: Cause,
    pub(in crate::lun) content: Content,
}

impl Cause {
    /// The erasure goes on.
    pub(in crate::lun) fn in_progress(self, progress: u16) -> Sense {
        match self {
            Self::Format => Sense::format_in_progress(progress),
            Self::Sanitize { .. } => Sense::sanitize_in_progress(progress),
        }
    }

    /// The command has failed.
    pub(in crate::lun) fn command_failed(self) -> Sense {
        match self {
            Self::Format => Sense::FORMAT_FAILED,
            Self::Sanitize { .. } => Sense::SANITIZE_FAILED,
        }
    }

    /// The command had failed before.
    pub(in crate::lun) fn has_failed(self) -> Sense {
        match self {
            Self::Format => Sense::FORMAT_CORRUPTED,
            Self::Sanitize { .. } => Sense::SANITIZE_FAILED,
        }
    }
}

impl Content {
    /// A pattern, in as few bytes as it takes.
    pub(in crate::lun) fn pattern(bytes: &[u8], invert: bool, passes: u8) -> Self {
        let repeats = |len: &usize| {
            bytes.len().is_multiple_of(*len) && bytes.chunks(*len).all(|chunk| bytes.starts_with(chunk))
        };
        let powers = (0..u16::BITS).map(|n| 1 << n).take_while(|len| *len < bytes.len());
        let len = powers.into_iter().find(repeats).unwrap_or(bytes.len());
        Self::Pattern { bytes: bytes[..len].to_vec(), invert, passes }
    }

    pub(super) fn passes(&self) -> u8 {
        match self {
            Self::Zeroes => 1,
            Self::Pattern { passes, .. } => *passes,
        }
    }

    /// A block as a pass leaves it; empty: zeros.
    pub(super) fn block(&self, block_size: u32, pass: u8) -> Vec<u8> {
        match self {
            Self::Zeroes => Vec::new(),
            Self::Pattern { bytes, invert, .. } => {
                let mask = if *invert && pass % 2 == 1 { 0xff } else { 0 };
                let len = usize::try_from(block_size).unwrap_or(0);
                bytes.iter().cycle().take(len).map(|byte| byte ^ mask).collect()
            }
        }
    }
}

impl Plan {
    /// In words, such as `sanitize overwrite passes=3 invert pattern=aa unrestricted`.
    pub(super) fn note(&self) -> String {
        let mut words = vec![
            match (self.cause, &self.content) {
                (Cause::Format, _) => "format",
                (Cause::Sanitize { .. }, Content::Zeroes) => "sanitize block-erase",
                (Cause::Sanitize { .. }, Content::Pattern { .. }) => "sanitize overwrite",
            }
            .to_owned(),
        ];
        if let Content::Pattern { bytes, invert, passes } = &self.content {
            words.push(format!("passes={passes}"));
            words.extend(invert.then(|| "invert".to_owned()));
            words.push(format!("pattern={}", hex(bytes)));
        }
        if self.cause == (Cause::Sanitize { unrestricted: true }) {
            words.push("unrestricted".to_owned());
        }
        words.join(" ")
    }

    /// What a note says; nothing unless it is word for word one of ours: to guess would be to erase on a guess.
    pub(super) fn of_note(note: &[u8]) -> Option<Self> {
        let note = std::str::from_utf8(note).ok()?;
        let has = |word: &str| note.split(' ').any(|is| is == word);
        let value = |name: &str| note.split(' ').find_map(|word| word.strip_prefix(name));
        let cause = if has("sanitize") {
            Cause::Sanitize { unrestricted: has("unrestricted") }
        } else {
            Cause::Format
        };
        let content = match value("pattern=") {
            None => Content::Zeroes,
            Some(pattern) => Content::Pattern {
                bytes: unhex(pattern)?,
                invert: has("invert"),
                passes: value("passes=")?.parse().ok().filter(|passes| (1..=MAX_PASSES).contains(passes))?,
            },
        };
        let plan = Self { cause, content };
        (plan.note() == note).then_some(plan)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<_>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| !digits.is_empty() && digits.len().is_multiple_of(2))?;
    digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SANITIZE: Cause = Cause::Sanitize { unrestricted: false };

    fn plan(cause: Cause, content: Content) -> Plan {
        Plan { cause, content }
    }

    #[test]
    fn notes_are_words() {
        let overwrite =
            |bytes: &[u8], invert, passes| Content::Pattern { bytes: bytes.to_vec(), invert, passes };
        for (plan, note) in [
            (plan(Cause::Format, Content::Zeroes), "format"),
            (plan(Cause::Format, overwrite(&[0xde, 0xad], false, 1)), "format passes=1 pattern=dead"),
            (plan(SANITIZE, Content::Zeroes), "sanitize block-erase"),
            (
                plan(Cause::Sanitize { unrestricted: true }, Content::Zeroes),
                "sanitize block-erase unrestricted",
            ),
            (
                plan(Cause::Sanitize { unrestricted: true }, overwrite(&[0], true, 31)),
                "sanitize overwrite passes=31 invert pattern=00 unrestricted",
            ),
        ] {
            assert_eq!(plan.note(), note);
            assert_eq!(Plan::of_note(note.as_bytes()), Some(plan));
        }
    }

    #[test]
    fn what_is_not_word_for_word_ours_is_not_understood() {
        for note in [
            "",
            "Format",
            "format ",
            "format now",
            "sanitize",
            "sanitize overwrite",
            "sanitize crypto-erase",
            "sanitize overwrite passes=0 pattern=aa",
            "sanitize overwrite passes=32 pattern=aa",
            "sanitize overwrite passes=+1 pattern=aa",
            "sanitize overwrite passes=1 pattern=",
            "sanitize overwrite passes=1 pattern=a",
            "sanitize overwrite passes=1 pattern=AA",
            "sanitize overwrite passes=1 pattern=aa invert",
            "sanitize overwrite passes=1 pattern=aa unrestricted\n",
            "format unrestricted",
        ] {
            assert_eq!(Plan::of_note(note.as_bytes()), None, "{note:?}");
        }
        assert_eq!(Plan::of_note(b"format\xff"), None);
    }

    #[test]
    fn patterns_are_shortened() {
        let short = |bytes: &[u8]| match Content::pattern(bytes, false, 1) {
            Content::Pattern { bytes, .. } => bytes,
            Content::Zeroes => panic!(),
        };
        assert_eq!(short(&[0xaa; 512]), [0xaa]);
        assert_eq!(short(b"abababab"), b"ab");
        assert_eq!(short(b"ababa"), b"ababa"); // in a block the fifth and the sixth byte are both a
        assert_eq!(short(b"abcabc"), b"abcabc");
        assert_eq!(short(b"x"), b"x");
    }

    #[test]
    fn passes_fill_blocks() {
        let content = Content::Pattern { bytes: vec![1, 2, 3], invert: true, passes: 3 };
        assert_eq!(content.block(8, 0), [1, 2, 3, 1, 2, 3, 1, 2]);
        assert_eq!(content.block(4, 1), [0xfe, 0xfd, 0xfc, 0xfe]);
        assert_eq!(content.block(4, 2), content.block(4, 0));
        assert!(Content::Zeroes.block(512, 0).is_empty());
    }

    proptest! {
        #[test]
        fn shortened_or_not_a_block_is_the_same(
            unit in prop::collection::vec(any::<u8>(), 1..5),
            times in 1..9_usize,
        ) {
            let pattern = unit.repeat(times);
            let expected: Vec<u8> = pattern.iter().copied().cycle().take(64).collect();
            prop_assert_eq!(Content::pattern(&pattern, false, 1).block(64, 0), expected);
        }

        #[test]
        fn notes_bring_their_plans_back(
            unrestricted: bool,
            format: bool,
            pattern in prop::option::of(prop::collection::vec(any::<u8>(), 1..20)),
            invert: bool,
            passes in 1..=31_u8,
        ) {
            let cause = if format { Cause::Format } else { Cause::Sanitize { unrestricted } };
            let content = pattern.map_or(Content::Zeroes, |bytes| Content::pattern(&bytes, invert, passes));
            let plan = plan(cause, content);
            prop_assert_eq!(Plan::of_note(plan.note().as_bytes()), Some(plan));
        }

        #[test]
        fn any_note_has_an_answer(note in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(plan) = Plan::of_note(&note) {
                prop_assert_eq!(plan.note().into_bytes(), note);
            }
        }
    }
}
