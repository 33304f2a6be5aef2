//! Parameter lists as they should be, and with one thing wrong.

use super::{Became, Seed};
use Became::{Good, Refused};

/// Which list, shape, fill; PARAMETER LIST LENGTH, buffer's length and two more, each plus this; damages; the rest.
#[rustfmt::skip]
const LISTS: &[(&str, &[u8], Became)] = &[
    ("unmap_nothing", &[0, 0, 7, 0, 0, 0, 0, 0, 0], Good),
    ("unmap_one", &[0, 0, 7, 0, 0, 0, 0, 0, 1, 2, 0, 8], Good),
    ("unmap_four", &[0, 1, 7, 0, 0, 0, 0, 0, 4, 0, 0, 1, 1, 0, 2, 5, 0, 3, 15, 0x80, 1], Good),
    ("unmap_five", &[0, 0, 7, 0, 0, 0, 0, 0, 5, 0, 0, 1, 1, 0, 1, 2, 0, 1, 3, 0, 1, 4, 0, 1], Refused),
    ("unmap_too_much", &[0, 2, 7, 0, 0, 0, 0, 0, 2, 0, 0, 30, 64, 0, 3], Refused),
    ("unmap_past_the_end", &[0, 0, 7, 0, 0, 0, 0, 0, 1, 2, 0x80, 8], Refused),
    ("unmap_list_length_short", &[0, 0, 7, 0xff, 0, 0, 0, 0, 1, 2, 0, 8], Refused),
    ("unmap_buffer_short", &[0, 0, 7, 0, 0xff, 0, 0, 0, 1, 2, 0, 8], Refused),
    ("unmap_data_length_short", &[0, 0, 7, 0, 0, 0xff, 0, 0, 1, 2, 0, 8], Refused),
    ("unmap_descriptors_long", &[0, 0, 7, 0, 0, 16, 16, 0, 1, 2, 0, 8], Refused),
    ("mode_select_6_none", &[1, 0, 0, 0, 0, 0, 0, 0, 0], Good),
    ("mode_select_6_all", &[1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 1, 2], Good),
    ("mode_select_6_damaged", &[1, 0, 0, 0, 0, 0, 0, 1, 6, 0, 4, 1, 1], Refused),
    ("mode_select_6_descriptors", &[1, 0, 0, 0, 0, 0, 8, 0, 1, 1], Refused),
    ("mode_select_6_page_short", &[1, 0, 0, 0xff, 0, 0, 0, 0, 1, 1], Refused),
    ("mode_select_10_all", &[2, 0, 0, 0, 0, 0, 0, 0, 3, 2, 1, 0], Good),
    ("mode_select_10_no_such_page", &[2, 0, 0, 0, 0, 0, 0, 0, 2, 2, 3], Refused),
    ("write_same_10", &[3, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 8, 1, 2, 3], Good),
    ("write_same_16_zeroes", &[3, 1, 9, 0, 0, 0, 0, 0, 3, 0, 0, 16], Good),
    ("write_same_16_no_data", &[3, 2, 9, 0, 0, 0, 0, 0, 5, 5, 0, 255], Good),
    ("write_same_16_no_blocks", &[3, 0, 9, 0, 0, 0, 0, 0, 3, 5, 0, 0], Refused),
    ("write_same_16_past_the_end", &[3, 1, 9, 0, 0, 0, 0, 0, 3, 5, 0, 12], Refused),
    ("extended_copy_nothing", &[4, 0, 0x83, 0, 0, 0, 0, 0, 1, 0], Good),
    ("extended_copy_one", &[4, 0, 0x83, 0, 0, 0, 0, 0, 1, 1, 0, 3, 0, 70, 0, 33], Good),
    ("extended_copy_down", &[4, 0, 0x85, 0, 0, 0, 0, 0, 1, 1, 2, 60, 0, 5, 0, 50], Good),
    ("extended_copy_up", &[4, 2, 0x87, 0, 0, 0, 0, 0, 1, 1, 3, 60, 0, 13, 0, 250], Good),
    (
        "extended_copy_three",
        &[4, 2, 0xff, 0, 0, 0, 0, 0, 9, 3, 0, 3, 0, 70, 0, 33, 9, 60, 0, 44, 1, 200, 3, 1, 0, 0, 0, 255],
        Good,
    ),
    ("extended_copy_past_the_end", &[4, 1, 0x83, 0, 0, 0, 0, 0, 1, 2, 0, 3, 0, 7, 0, 3, 4, 9, 0, 2, 0, 8], Refused),
    ("extended_copy_to_past_the_end", &[4, 1, 0x83, 0, 0, 0, 0, 0, 1, 1, 4, 2, 0, 9, 0, 8], Refused),
    // The lower byte of the source's offset in bytes.
    ("extended_copy_part_of_a_block", &[4, 0, 0x83, 0, 0, 0, 0, 1, 109, 0, 2, 1, 1, 1, 3, 0, 70, 0, 33], Refused),
    ("extended_copy_cut_short", &[4, 0, 0x83, 0xff, 0, 0, 0, 0, 1, 1, 0, 3, 0, 70, 0, 33], Refused),
    ("extended_copy_buffer_short", &[4, 0, 0x83, 0, 0xff, 0, 0, 0, 1, 1, 0, 3, 0, 70, 0, 33], Refused),
    ("extended_copy_devices_short", &[4, 0, 0x83, 0, 0, 0xff, 0, 0, 1, 1, 0, 3, 0, 70, 0, 33], Refused),
    ("extended_copy_segments_short", &[4, 0, 0x83, 0, 0, 0, 0xff, 0, 1, 1, 0, 3, 0, 70, 0, 33], Refused),
    // The last digit of the second designator.
    ("extended_copy_of_another", &[4, 0, 0x83, 0, 0, 0, 0, 1, 71, 0, 0, 1, 1, 0, 3, 0, 70, 0, 33], Refused),
    ("format_unit", &[5, 0, 0x83, 0, 0, 0, 0, 0, 0], Good),
    ("format_unit_immediate", &[5, 2, 0x83, 0, 0, 0, 0, 0, 3], Good),
    ("format_unit_pattern", &[5, 1, 0x83, 0, 0, 0, 0, 0, 4, 3, 0, 7, 8, 9], Good),
    ("format_unit_pattern_immediate", &[5, 2, 0x83, 0, 0, 0, 0, 0, 7, 0, 2, 7, 8, 9], Good),
    ("format_unit_pattern_too_long", &[5, 0, 0x83, 0, 0, 0, 0, 0, 4, 1, 2, 7, 8, 9], Refused),
    ("format_unit_defects", &[5, 0, 0x83, 0, 0, 8, 0, 0, 1], Refused),
    ("format_unit_cut_short", &[5, 0, 0x83, 0, 0xff, 0, 0, 0, 4, 3, 0, 7, 8, 9], Refused),
    ("overwrite", &[6, 0, 0x83, 0, 0, 0, 0, 0, 0, 1, 1, 0, 7], Good),
    ("overwrite_inverted", &[6, 1, 0x83, 0, 0, 0, 0, 0, 0, 0x82, 3, 0, 7, 8, 9], Good),
    ("overwrite_31_passes", &[6, 2, 0x83, 0, 0, 0, 0, 0, 4, 0x9f, 0, 2, 7, 8, 9], Good),
    ("overwrite_unrestricted", &[6, 0, 0x83, 0, 0, 0, 0, 0, 1, 3, 0, 2, 7, 8, 9], Good),
    ("overwrite_no_pass", &[6, 0, 0x83, 0, 0, 0, 0, 0, 0, 0x80, 3, 0, 7, 8, 9], Refused),
    ("overwrite_no_pattern", &[6, 0, 0x83, 0, 0, 0, 0, 0, 0, 1, 0, 0], Refused),
    ("overwrite_list_length_short", &[6, 0, 0x83, 0xff, 0, 0, 0, 0, 0, 1, 3, 0, 7, 8, 9], Refused),
    ("overwrite_pattern_long", &[6, 0, 0x83, 0, 0, 1, 0, 0, 0, 1, 3, 0, 7, 8, 9], Refused),
    ("write_same_16_buffer_long", &[3, 0, 9, 0, 1, 0, 0, 0, 3, 5, 0, 1], Refused),
];

pub(super) fn seeds() -> impl Iterator<Item = Seed> {
    LISTS.iter().map(|&(name, bytes, want)| Seed {
        target: "parameter_list",
        name: name.into(),
        bytes: bytes.into(),
        want,
    })
}
