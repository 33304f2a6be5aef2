//! LOG SENSE data (SPC-4, "Log parameters"): the lists of log pages, and nothing else.
//!
//! Storage keeps no counters of errors, temperatures or starts that belong to this disk, and the Logical Block
//! Provisioning page would be about a pool that is shared. A page that cannot be true is not there.

use super::sense::Sense;

/// Supported Log Pages.
const SUPPORTED_PAGES: u8 = 0x00;
/// The subpage code that stands for all subpages: Supported Log Pages and Subpages.
const ALL_SUBPAGES: u8 = 0xff;
/// SPF.
const SUBPAGE_FORMAT: u8 = 0x40;

/// Appends the page asked for.
pub fn sense(page: u8, subpage: u8, pointer: u16, out: &mut Vec<u8>) -> Result<(), Sense> {
    if page != SUPPORTED_PAGES {
        return Err(Sense::invalid_cdb_field(2, Some(5)));
    }
    let (format, list): (u8, &[u8]) = match subpage {
        0 => (0, &[SUPPORTED_PAGES]),
        ALL_SUBPAGES => (SUBPAGE_FORMAT, &[SUPPORTED_PAGES, 0, SUPPORTED_PAGES, ALL_SUBPAGES]),
        _ => return Err(Sense::invalid_cdb_field(3, Some(7))),
    };
    if pointer != 0 {
        // SPC-4, "LOG SENSE command": a parameter code beyond those of the page; this one has none.
        return Err(Sense::invalid_cdb_field(5, Some(7)));
    }
    let len = u16::try_from(list.len()).unwrap_or(u16::MAX).to_be_bytes();
    out.extend_from_slice(&[format | page, subpage, len[0], len[1]]);
    out.extend_from_slice(list);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(page: u8, subpage: u8, pointer: u16) -> Result<Vec<u8>, [u8; 2]> {
        let mut out = Vec::new();
        match sense(page, subpage, pointer, &mut out) {
            Ok(()) => Ok(out),
            Err(sense) => Err([sense.to_bytes()[12], sense.to_bytes()[17]]),
        }
    }

    #[test]
    fn lists_of_pages() {
        assert_eq!(ask(0, 0, 0).unwrap(), [0, 0, 0, 1, 0x00]);
        assert_eq!(ask(0, 0xff, 0).unwrap(), [0x40, 0xff, 0, 4, 0, 0, 0, 0xff]);
    }

    #[test]
    fn refusals() {
        assert_eq!(ask(0x0c, 0, 0), Err([0x24, 2])); // Logical Block Provisioning
        assert_eq!(ask(0x3f, 0, 0), Err([0x24, 2]));
        assert_eq!(ask(0, 1, 0), Err([0x24, 3]));
        assert_eq!(ask(0, 0, 1), Err([0x24, 5]));
    }
}
