//! SANITIZE (SBC-3): what it asks, and the parameter list of OVERWRITE, from memory that its sender can no longer
//! change.

use super::sense::Sense;

/// What SANITIZE asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sanitize {
    /// SERVICE ACTION.
    pub service: Service,
    /// IMMED: status as soon as the command has been checked.
    pub immediate: bool,
    /// AUSE: EXIT FAILURE MODE may end a failure of this one.
    pub unrestricted: bool,
}

/// SERVICE ACTION.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// OVERWRITE.
    Overwrite {
        /// PARAMETER LIST LENGTH.
        list: u16,
    },
    /// BLOCK ERASE.
    BlockErase,
    /// EXIT FAILURE MODE.
    ExitFailureMode,
}

/// What to overwrite with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overwrite<'a> {
    /// INVERT: every other pass writes the inverted pattern.
    pub invert: bool,
    /// OVERWRITE COUNT, at least one.
    pub count: u8,
    /// INITIALIZATION PATTERN: not empty, not longer than a block.
    pub pattern: &'a [u8],
}

/// Length of the list without the pattern.
const HEADER: u16 = 4;

/// Reads a list of PARAMETER LIST LENGTH `len`.
pub fn overwrite(len: u16, list: &[u8], block_size: u32) -> Result<Overwrite<'_>, Sense> {
    // SBC-3, "SANITIZE command": room for one byte of pattern at least and for a block of it at most.
    if len <= HEADER || u32::from(len - HEADER) > block_size {
        return Err(Sense::invalid_cdb_field(7, Some(7)));
    }
    // Fewer parameters than the CDB says is what a data buffer shorter than that gives.
    let list = list.get(..usize::from(len)).ok_or(Sense::PARAMETER_LIST_LENGTH)?;
    let Some(([options, reserved, high, low], rest)) = list.split_first_chunk() else {
        return Err(Sense::PARAMETER_LIST_LENGTH);
    };
    let (invert, count) = (options & 0x80 != 0, options & 0x1f);
    // TEST: anything but 00b is vendor specific.
    if options & 0x60 != 0 || count == 0 {
        return Err(Sense::invalid_parameter(0));
    }
    if *reserved != 0 {
        return Err(Sense::invalid_parameter(1));
    }
    let len = u16::from_be_bytes([*high, *low]);
    if len == 0 || u32::from(len) > block_size {
        return Err(Sense::invalid_parameter(2));
    }
    let pattern = rest.get(..usize::from(len)).ok_or(Sense::PARAMETER_LIST_LENGTH)?;
    Ok(Overwrite { invert, count, pattern })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// INVERT, count and pattern, or ASC and field pointer of the refusal.
    fn ask(len: u16, list: &[u8]) -> Result<(bool, u8, &[u8]), (u8, u8)> {
        match overwrite(len, list, 512) {
            Ok(overwrite) => Ok((overwrite.invert, overwrite.count, overwrite.pattern)),
            Err(sense) => Err((sense.to_bytes()[12], sense.to_bytes()[17])),
        }
    }

    fn list(options: u8, len: u16, pattern: &[u8]) -> Vec<u8> {
        let [high, low] = len.to_be_bytes();
        [&[options, 0, high, low], pattern].concat()
    }

    #[test]
    fn lists() {
        assert_eq!(ask(5, &list(0x01, 1, &[7])), Ok((false, 1, &[7][..])));
        assert_eq!(ask(5, &list(0x01, 1, &[7, 0, 0, 0])), Ok((false, 1, &[7][..]))); // a padded buffer
        assert_eq!(ask(8, &list(0x9f, 4, b"abcd")), Ok((true, 31, &b"abcd"[..])));
        assert_eq!(ask(8, &list(0x02, 3, b"abcd")), Ok((false, 2, &b"abc"[..])));
        assert_eq!(ask(516, &list(0x01, 512, &[9; 512])), Ok((false, 1, &[9; 512][..])));
    }

    #[test]
    fn refusals() {
        for len in 0..5 {
            assert_eq!(ask(len, &list(0x01, 1, &[7])), Err((0x24, 7)), "{len}");
        }
        assert_eq!(ask(517, &list(0x01, 512, &[9; 513])), Err((0x24, 7)));
        assert_eq!(ask(8, &list(0x00, 4, b"abcd")), Err((0x26, 0))); // OVERWRITE COUNT
        assert_eq!(ask(8, &list(0x21, 4, b"abcd")), Err((0x26, 0))); // TEST
        assert_eq!(ask(8, &[0x01, 1, 0, 4, 0, 0, 0, 0]), Err((0x26, 1)));
        assert_eq!(ask(8, &list(0x01, 0, b"abcd")), Err((0x26, 2)));
        assert_eq!(ask(516, &list(0x01, 513, &[9; 512])), Err((0x26, 2)));
        assert_eq!(ask(8, &list(0x01, 5, b"abcd")), Err((0x1a, 0)));
        assert_eq!(ask(8, &list(0x01, 4, b"abc")), Err((0x1a, 0))); // a buffer too short
        assert_eq!(ask(8, &[]), Err((0x1a, 0)));
    }

    proptest! {
        #[test]
        fn any_list_has_an_answer(len: u16, list in prop::collection::vec(any::<u8>(), 0..600)) {
            match ask(len, &list) {
                Ok((_, count, pattern)) => {
                    prop_assert!((1..=31).contains(&count) && (1..=512).contains(&pattern.len()));
                }
                Err((asc, _)) => prop_assert!(matches!(asc, 0x1a | 0x24 | 0x26)),
            }
        }
    }
}
