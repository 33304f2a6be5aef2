//! MODE SENSE data (SPC-4 and SBC-3, "Mode parameters").
//!
//! Three pages, no block descriptors, nothing changeable, nothing saved.

use super::command::{ModeSense, PageControl};
use super::sense::Sense;

/// Read-Write Error Recovery: nothing set, storage does its own recovery.
const RECOVERY: [u8; 12] = [0x01, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Caching: WCE = 0, because a write is durable when it completes; RCD = 0.
const CACHING: [u8; 20] = [0x08, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Control.
const CONTROL: [u8; 12] = [
    0x0a, 0x0a, //
    0x02, // TST 000b, D_SENSE 0, GLTSD 1
    0x10, // QUEUE ALGORITHM MODIFIER 0001b: commands run side by side and may be reordered
    0x00, 0x40, // TAS: the kernel answers TASK ABORTED
    0x00, 0x00, 0xff, 0xff, // BUSY TIMEOUT PERIOD: unlimited
    0x00, 0x00,
];

pub(super) const PAGES: [&[u8]; 3] = [&RECOVERY, &CACHING, &CONTROL];

/// PAGE CODE for all pages.
const ALL_PAGES: u8 = 0x3f;

/// SUBPAGE CODE for all subpages.
const ALL_SUBPAGES: u8 = 0xff;

/// DEVICE-SPECIFIC PARAMETER (SBC-3, "Mode parameter header"): DPOFUA, and not WP.
const DEVICE_SPECIFIC: u8 = 0x10;

pub(super) const SHORT_HEADER: usize = 4;
pub(super) const LONG_HEADER: usize = 8;

// MODE DATA LENGTH does not count itself; all pages behind the short header must fit in one byte.
const _: () = assert!(SHORT_HEADER - 1 + RECOVERY.len() + CACHING.len() + CONTROL.len() <= 0xff);

/// Appends the mode parameter list asked for.
pub fn sense(ask: &ModeSense, out: &mut Vec<u8>) -> Result<(), Sense> {
    if ask.control == PageControl::Saved {
        return Err(Sense::NO_SAVED_PARAMETERS);
    }
    let all = ask.page == ALL_PAGES;
    if ask.subpage != 0 && !(all && ask.subpage == ALL_SUBPAGES) {
        return Err(Sense::invalid_cdb_field(3, Some(7)));
    }
    let start = out.len();
    out.resize(start + if ask.long { LONG_HEADER } else { SHORT_HEADER }, 0);
    let mut found = false;
    for page in PAGES {
        if all || page[0] == ask.page {
            found = true;
            push_page(page, ask.control, out);
        }
    }
    if !found {
        return Err(Sense::invalid_cdb_field(2, Some(5)));
    }
    let len = out.len() - start;
    let header = &mut out[start..];
    if ask.long {
        let data_len = u16::try_from(len - 2).unwrap_or(u16::MAX);
        header[..2].copy_from_slice(&data_len.to_be_bytes());
        header[3] = DEVICE_SPECIFIC;
    } else {
        header[0] = u8::try_from(len - 1).unwrap_or(u8::MAX);
        header[2] = DEVICE_SPECIFIC;
    }
    Ok(())
}

/// Appends one page; for changeable values the mask, which is all zeros behind the page's two-byte header.
fn push_page(page: &[u8], control: PageControl, out: &mut Vec<u8>) {
    let (header, values) = page.split_at(2);
    out.extend_from_slice(header);
    match control {
        PageControl::Changeable => out.resize(out.len() + values.len(), 0),
        PageControl::Current | PageControl::Default | PageControl::Saved => out.extend_from_slice(values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(long: bool, control: PageControl, page: u8, subpage: u8) -> Result<Vec<u8>, [u8; 2]> {
        let mut out = Vec::new();
        let ask = ModeSense { long, control, page, subpage, allocation: 0 };
        match sense(&ask, &mut out) {
            Ok(()) => Ok(out),
            Err(sense) => Err([sense.to_bytes()[12], sense.to_bytes()[17]]),
        }
    }

    #[rustfmt::skip]
    const ALL: [u8; 44] = [
        0x01, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0x08, 0x12, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // WCE = 0
        0x0a, 0x0a, 0x02, 0x10, 0, 0x40, 0, 0, 0xff, 0xff, 0, 0,
    ];

    #[test]
    fn all_pages_behind_both_headers() {
        let short = ask(false, PageControl::Current, 0x3f, 0).unwrap();
        assert_eq!(short[..4], [0x2f, 0x00, 0x10, 0x00]); // 47 more; DPOFUA, not WP; no descriptors
        assert_eq!(short[4..], ALL);
        let long = ask(true, PageControl::Default, 0x3f, 0xff).unwrap();
        assert_eq!(long[..8], [0x00, 0x32, 0x00, 0x10, 0, 0, 0, 0]);
        assert_eq!(long[8..], ALL);
    }

    #[test]
    fn single_pages() {
        assert_eq!(ask(false, PageControl::Current, 0x08, 0).unwrap()[4..], ALL[12..32]);
        assert_eq!(ask(true, PageControl::Current, 0x01, 0).unwrap()[8..], ALL[..12]);
        assert_eq!(ask(false, PageControl::Current, 0x0a, 0).unwrap()[0], 15);
    }

    #[test]
    fn nothing_is_changeable() {
        let mask = ask(false, PageControl::Changeable, 0x0a, 0).unwrap();
        assert_eq!(mask, [15, 0, 0x10, 0, 0x0a, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn refusals() {
        assert_eq!(ask(false, PageControl::Saved, 0x08, 0), Err([0x39, 0]));
        assert_eq!(ask(false, PageControl::Current, 0x1c, 0), Err([0x24, 2]));
        assert_eq!(ask(false, PageControl::Current, 0x00, 0), Err([0x24, 2]));
        assert_eq!(ask(false, PageControl::Current, 0x0a, 1), Err([0x24, 3]));
        assert_eq!(ask(false, PageControl::Current, 0x3f, 1), Err([0x24, 3]));
    }
}
