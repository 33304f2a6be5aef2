//! MODE SELECT parameter lists (SPC-4, "Mode parameters"), from memory that their sender can no longer change.
//!
//! Nothing is changeable, so a list is good only if it says what is so already. Tools that read a page, change
//! nothing that matters and write it back get GOOD; any other value is refused where it stands.

use super::mode::{LONG_HEADER, PAGES, SHORT_HEADER};
use super::sense::Sense;

/// PS is reserved in a list; SPF says that a subpage follows, and there are none.
const PS: u8 = 0x80;

/// Checks a list; an empty one is good.
pub fn check(long: bool, list: &[u8]) -> Result<(), Sense> {
    if list.is_empty() {
        return Ok(());
    }
    let header = if long { LONG_HEADER } else { SHORT_HEADER };
    if list.len() < header {
        return Err(Sense::PARAMETER_LIST_LENGTH);
    }
    // MODE DATA LENGTH is reserved here, and so is DPOFUA; WP is ignored (SBC-3, "Mode parameter header").
    // BLOCK DESCRIPTOR LENGTH: there are none.
    let descriptors = if long { 6..8 } else { 3..4 };
    for at in descriptors {
        expect(list, at, 0)?;
    }
    let mut at = header;
    while at < list.len() {
        at += check_page(list, at)?;
    }
    Ok(())
}

/// Checks the page that begins at `at`; its length.
fn check_page(list: &[u8], at: usize) -> Result<usize, Sense> {
    let code = list.get(at).map_or(0, |byte| byte & !PS);
    let Some(page) = PAGES.iter().find(|page| page[0] == code) else {
        return Err(Sense::invalid_parameter(pointer(at)));
    };
    for (byte, is) in page.iter().enumerate().skip(1) {
        expect(list, at + byte, *is)?;
    }
    Ok(page.len())
}

/// A byte of the list must be what is so.
fn expect(list: &[u8], at: usize, is: u8) -> Result<(), Sense> {
    match list.get(at) {
        Some(byte) if *byte == is => Ok(()),
        Some(_) => Err(Sense::invalid_parameter(pointer(at))),
        // SPC-4, "MODE SELECT (6) command": a list that ends within a page.
        None => Err(Sense::PARAMETER_LIST_LENGTH),
    }
}

fn pointer(at: usize) -> u16 {
    u16::try_from(at).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// ASC and field pointer of the refusal.
    fn ask(long: bool, list: &[u8]) -> Result<(), (u8, u8)> {
        check(long, list).map_err(|sense| (sense.to_bytes()[12], sense.to_bytes()[17]))
    }

    const CACHING: [u8; 20] = [0x08, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const CONTROL: [u8; 12] = [0x0a, 0x0a, 0x02, 0x10, 0, 0x40, 0, 0, 0xff, 0xff, 0, 0];

    fn short(pages: &[&[u8]]) -> Vec<u8> {
        [&[0, 0, 0, 0], pages.concat().as_slice()].concat()
    }

    fn with(list: &[u8], at: usize, value: u8) -> Vec<u8> {
        let mut list = list.to_vec();
        list[at] = value;
        list
    }

    #[test]
    fn what_is_so_is_good() {
        assert_eq!(ask(false, &[]), Ok(()));
        assert_eq!(ask(false, &[0, 0, 0, 0]), Ok(()));
        assert_eq!(ask(true, &[0; 8]), Ok(()));
        assert_eq!(ask(false, &short(&[&CACHING])), Ok(()));
        assert_eq!(ask(false, &short(&[&CONTROL, &CACHING])), Ok(()));
        let long = [&[0; 8], CONTROL.as_slice()].concat();
        assert_eq!(ask(true, &long), Ok(()));
        // As MODE SENSE returned it: a length and DPOFUA in the header.
        let again = with(&with(&short(&[&CACHING]), 0, 23), 2, 0x10);
        assert_eq!(ask(false, &again), Ok(()));
        // PS is reserved, not an error.
        assert_eq!(ask(false, &short(&[&with(&CACHING, 0, 0x88)])), Ok(()));
    }

    #[test]
    fn what_is_not_so_is_pointed_at() {
        let caching = short(&[&CACHING]);
        assert_eq!(ask(false, &with(&caching, 6, 0x04)), Err((0x26, 6))); // WCE = 1
        let both = short(&[&CACHING, &CONTROL]);
        assert_eq!(ask(false, &with(&both, 28, 0x08)), Err((0x26, 28))); // SWP = 1
        assert_eq!(ask(false, &with(&both, 26, 0x06)), Err((0x26, 26))); // D_SENSE = 1
        assert_eq!(ask(false, &with(&caching, 5, 0x0a)), Err((0x26, 5))); // PAGE LENGTH
        assert_eq!(ask(false, &with(&caching, 4, 0x1c)), Err((0x26, 4))); // a page that is not there
        assert_eq!(ask(false, &with(&caching, 4, 0x48)), Err((0x26, 4))); // a subpage
        assert_eq!(ask(false, &with(&caching, 3, 8)), Err((0x26, 3))); // a block descriptor
        assert_eq!(ask(true, &with(&[0; 8], 7, 8)), Err((0x26, 7)));
    }

    #[test]
    fn a_list_cut_short_has_a_length_error() {
        let whole = short(&[&CACHING]);
        for len in (1..4).chain(5..24) {
            assert_eq!(ask(false, &whole[..len]), Err((0x1a, 0)), "{len}");
        }
        assert_eq!(ask(true, &[0; 7]), Err((0x1a, 0)));
    }

    proptest! {
        #[test]
        fn any_list_has_an_answer(long in any::<bool>(), list in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Err((asc, _)) = ask(long, &list) {
                prop_assert!(matches!(asc, 0x1a | 0x26));
            }
        }
    }
}
