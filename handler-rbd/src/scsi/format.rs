//! FORMAT UNIT parameter lists (SBC-3, "FORMAT UNIT parameter list"), from memory that their sender can no longer
//! change.
//!
//! There are no defects to list and no protection information, so what is about either must be empty. DPRY, DCRT
//! and STPF say what to do about defects and are void. SI = 1 would be a promise about where the data has been
//! before, which nobody here can give.

use super::sense::Sense;

/// LONGLIST: which header a parameter list has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatHeader {
    /// Four bytes.
    Short,
    /// Eight bytes.
    Long,
}

impl FormatHeader {
    /// Its length in bytes.
    pub const fn bytes(self) -> u32 {
        match self {
            Self::Short => 4,
            Self::Long => 8,
        }
    }
}

/// What a list asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format<'a> {
    /// IMMED: status as soon as the list has been checked.
    pub immediate: bool,
    /// What every block is to be filled with, repeated from the block's start on; none: zeros.
    pub pattern: Option<&'a [u8]>,
}

/// Length of the initialization pattern descriptor without the pattern.
const DESCRIPTOR: u16 = 4;

// Byte 1 of the header.
const FOV: u8 = 0x80;
const DEFECT_OPTIONS: u8 = 0x70;
const IP: u8 = 0x08;
const IMMED: u8 = 0x02;
const OTHER: u8 = 0x05; // DSP, which is obsolete, and VS

// INITIALIZATION PATTERN TYPE.
const DEFAULT: u8 = 0x00;
const REPEAT: u8 = 0x01;

/// Most bytes that a list without defects has.
pub fn longest(block_size: u32) -> u32 {
    block_size.saturating_add(FormatHeader::Long.bytes()).saturating_add(DESCRIPTOR.into())
}

/// Reads a list. What follows it is not looked at: the CDB does not say where it ends.
pub fn parse(header: FormatHeader, list: &[u8], block_size: u32) -> Result<Format<'_>, Sense> {
    let zero = |at| match byte(list, at)? {
        0 => Ok(()),
        _ => Err(Sense::invalid_parameter(at)),
    };
    let (reserved, defects, end) = match header {
        FormatHeader::Short => (2..2, 2..4, 4),
        FormatHeader::Long => (2..4, 4..8, 8), // with P_I_INFORMATION and PROTECTION INTERVAL EXPONENT
    };
    byte(list, end - 1)?;
    zero(0)?; // PROTECTION FIELD USAGE
    let options = byte(list, 1)?;
    if options & OTHER != 0 || (options & FOV == 0 && options & (DEFECT_OPTIONS | IP) != 0) {
        return Err(Sense::invalid_parameter(1));
    }
    reserved.into_iter().try_for_each(zero)?;
    let first = defects.start;
    for at in defects {
        // DEFECT LIST LENGTH
        zero(at).map_err(|_| Sense::invalid_parameter(first))?;
    }
    let pattern = if options & IP != 0 { pattern(list, end, block_size)? } else { None };
    Ok(Format { immediate: options & IMMED != 0, pattern })
}

/// Reads the initialization pattern descriptor at `at`.
fn pattern(list: &[u8], at: u16, block_size: u32) -> Result<Option<&[u8]>, Sense> {
    let len = u16::from_be_bytes([byte(list, at + 2)?, byte(list, at + 3)?]);
    // SI; IP MODIFIER, which is obsolete.
    if byte(list, at)? != 0 {
        return Err(Sense::invalid_parameter(at));
    }
    match (byte(list, at + 1)?, len) {
        (DEFAULT, 0) => Ok(None),
        (REPEAT, 1..) if u32::from(len) <= block_size => {
            let start = usize::from(at + DESCRIPTOR);
            let pattern = list.get(start..start + usize::from(len)).ok_or(Sense::PARAMETER_LIST_LENGTH)?;
            Ok(Some(pattern))
        }
        (DEFAULT | REPEAT, _) => Err(Sense::invalid_parameter(at + 2)),
        _ => Err(Sense::invalid_parameter(at + 1)),
    }
}

fn byte(list: &[u8], at: u16) -> Result<u8, Sense> {
    list.get(usize::from(at)).copied().ok_or(Sense::PARAMETER_LIST_LENGTH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// IMMED and pattern.
    type Asked<'a> = (bool, Option<&'a [u8]>);

    /// What a list asks, or ASC and field pointer of the refusal.
    fn ask(long: bool, list: &[u8]) -> Result<Asked<'_>, (u8, u8)> {
        let header = if long { FormatHeader::Long } else { FormatHeader::Short };
        match parse(header, list, 512) {
            Ok(format) => Ok((format.immediate, format.pattern)),
            Err(sense) => Err((sense.to_bytes()[12], sense.to_bytes()[17])),
        }
    }

    #[test]
    fn lists_as_tools_send_them() {
        assert_eq!(ask(false, &[0, 0, 0, 0]), Ok((false, None)));
        assert_eq!(ask(false, &[0, 0x02, 0, 0]), Ok((true, None)));
        assert_eq!(ask(true, &[0, 0x02, 0, 0, 0, 0, 0, 0]), Ok((true, None)));
        assert_eq!(ask(false, &[0, 0xa2, 0, 0]), Ok((true, None))); // FOV, DCRT
        assert_eq!(ask(false, &[0, 0xf0, 0, 0]), Ok((false, None))); // and DPRY, STPF
        assert_eq!(ask(false, &[0, 0x8a, 0, 0, 0, 0, 0, 0]), Ok((true, None))); // the default pattern
        assert_eq!(ask(true, &[0, 0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Ok((false, None)));
        let pattern = [0, 0x8a, 0, 0, 0, 1, 0, 3, 7, 8, 9, 0xff];
        assert_eq!(ask(false, &pattern), Ok((true, Some(&[7, 8, 9][..]))));
        let mut whole = vec![0, 0x88, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0];
        whole.extend_from_slice(&[5; 512]);
        assert_eq!(ask(true, &whole), Ok((false, Some(&[5; 512][..]))));
        assert_eq!(longest(512), 524); // that is the longest
    }

    #[test]
    fn what_is_not_supported_is_pointed_at() {
        assert_eq!(ask(false, &[1, 0, 0, 0]), Err((0x26, 0))); // PROTECTION FIELD USAGE
        for options in [0x01, 0x04, 0x08, 0x10, 0x20, 0x40, 0x81, 0x84] {
            assert_eq!(ask(false, &[0, options, 0, 0]), Err((0x26, 1)), "{options:02x}");
        }
        assert_eq!(ask(false, &[0, 0, 0, 8]), Err((0x26, 2))); // defects
        assert_eq!(ask(false, &[0, 0, 1, 0]), Err((0x26, 2)));
        assert_eq!(ask(true, &[0, 0, 1, 0, 0, 0, 0, 0]), Err((0x26, 2)));
        assert_eq!(ask(true, &[0, 0, 0, 0x10, 0, 0, 0, 0]), Err((0x26, 3))); // P_I_INFORMATION
        assert_eq!(ask(true, &[0, 0, 0, 0, 0, 0, 0, 8]), Err((0x26, 4)));
        assert_eq!(ask(false, &[0, 0x88, 0, 0, 0x20, 0, 0, 0]), Err((0x26, 4))); // SI
        assert_eq!(ask(false, &[0, 0x88, 0, 0, 0, 0x80, 0, 0]), Err((0x26, 5))); // vendor specific
        assert_eq!(ask(false, &[0, 0x88, 0, 0, 0, 0, 0, 1, 7]), Err((0x26, 6))); // no pattern has a length
        assert_eq!(ask(false, &[0, 0x88, 0, 0, 0, 1, 0, 0]), Err((0x26, 6)));
        assert_eq!(ask(false, &[0, 0x88, 0, 0, 0, 1, 2, 1]), Err((0x26, 6))); // more than a block
        assert_eq!(ask(true, &[0, 0x88, 0, 0, 0, 0, 0, 0, 0, 1, 2, 1]), Err((0x26, 10)));
    }

    #[test]
    fn a_list_cut_short_has_a_length_error() {
        for len in 0..4 {
            assert_eq!(ask(false, &[0, 0, 0, 0][..len]), Err((0x1a, 0)), "{len}");
        }
        assert_eq!(ask(true, &[0; 7]), Err((0x1a, 0)));
        let whole = [0, 0x88, 0, 0, 0, 1, 0, 2, 7, 7];
        for len in 4..10 {
            assert_eq!(ask(false, &whole[..len]), Err((0x1a, 0)), "{len}");
        }
    }

    proptest! {
        #[test]
        fn any_list_has_an_answer(long in any::<bool>(), list in prop::collection::vec(any::<u8>(), 0..80)) {
            match ask(long, &list) {
                Ok((_, pattern)) => prop_assert!(pattern.is_none_or(|pattern| !pattern.is_empty())),
                Err((asc, _)) => prop_assert!(matches!(asc, 0x1a | 0x26)),
            }
        }
    }
}
