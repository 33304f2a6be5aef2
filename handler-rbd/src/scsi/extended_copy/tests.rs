use super::*;
use proptest::prelude::*;

/// The NAA designator of a unit, as its page 83h has it.
const NAME: [u8; 16] =
    [0x60, 0x01, 0x40, 0x5f, 0x8c, 0xc0, 0xe0, 0x2e, 0x1d, 0x04, 0x03, 0xa9, 0x07, 0xb2, 0xf3, 0xe4];

fn device(name: &[u8; 16]) -> Vec<u8> {
    let mut descriptor = vec![0xe4, 0, 0, 0, 0x01, 0x03, 0, 16];
    descriptor.extend_from_slice(name);
    descriptor.extend_from_slice(&[0, 0, 0, 0, 0, 0, 2, 0]); // blocks of 512 bytes
    descriptor
}

fn segment(source: u16, destination: u16, blocks: u16, from: u64, to: u64) -> Vec<u8> {
    let mut descriptor = vec![0x02, 0, 0, 0x18];
    descriptor.extend_from_slice(&source.to_be_bytes());
    descriptor.extend_from_slice(&destination.to_be_bytes());
    descriptor.extend_from_slice(&[0, 0]);
    descriptor.extend_from_slice(&blocks.to_be_bytes());
    descriptor.extend_from_slice(&from.to_be_bytes());
    descriptor.extend_from_slice(&to.to_be_bytes());
    descriptor
}

/// From device 0 to device 0: so many bytes, from LBA and byte, to LBA and byte.
fn bytes_segment(len: u32, from: (u64, u16), to: (u64, u16)) -> Vec<u8> {
    let mut descriptor = vec![0x0a, 0, 0, 0x1c, 0, 0, 0, 0];
    descriptor.extend_from_slice(&len.to_be_bytes());
    descriptor.extend_from_slice(&from.0.to_be_bytes());
    descriptor.extend_from_slice(&to.0.to_be_bytes());
    descriptor.extend_from_slice(&from.1.to_be_bytes());
    descriptor.extend_from_slice(&to.1.to_be_bytes());
    descriptor
}

/// List identifier 5, to be held.
fn list(devices: &[Vec<u8>], segments: &[Vec<u8>]) -> Vec<u8> {
    let (devices, segments) = (devices.concat(), segments.concat());
    let mut list = vec![5, 0];
    list.extend_from_slice(&u16::try_from(devices.len()).unwrap().to_be_bytes());
    list.extend_from_slice(&[0; 4]);
    list.extend_from_slice(&u32::try_from(segments.len()).unwrap().to_be_bytes());
    list.extend_from_slice(&[0; 4]);
    [list, devices, segments].concat()
}

fn read(list: &[u8]) -> Result<CopyList, Vec<u8>> {
    let len = u32::try_from(list.len()).unwrap();
    parse(len, list, &NAME, 512).map_err(|sense| sense.to_bytes()[..18].to_vec())
}

/// Key, ASC, ASCQ.
fn error(list: &[u8]) -> (u8, u8, u8) {
    let sense = read(list).unwrap_err();
    (sense[2], sense[12], sense[13])
}

/// The byte of the parameter list that INVALID FIELD IN PARAMETER LIST points at.
fn invalid(list: &[u8]) -> u16 {
    let sense = read(list).unwrap_err();
    assert_eq!((sense[2], sense[12], sense[13], sense[15]), (5, 0x26, 0x00, 0x80));
    u16::from_be_bytes([sense[16], sense[17]])
}

#[test]
fn another_device_may_have_other_blocks() {
    let of_4096 = |name: &[u8; 16]| {
        let mut descriptor = device(name);
        descriptor[30..].copy_from_slice(&[0x10, 0]);
        descriptor
    };
    let copy = [segment(0, 1, 1, 0, 0)];
    assert_eq!(error(&list(&[device(&NAME), of_4096(&[0x60; 16])], &copy)), (0x0a, 0x0d, 0x02));
    assert_eq!(invalid(&list(&[device(&NAME), of_4096(&NAME)], &copy)), 16 + 32 + 29);
}

#[test]
fn segments_in_bytes() {
    let segments =
        [segment(0, 1, 3, 10, 20), segment(1, 0, 65535, 0, 1 << 40), bytes_segment(1024, (7, 512), (9, 0))];
    let copy = read(&list(&[device(&NAME), device(&NAME)], &segments)).unwrap();
    let segment = |source, destination, len| Segment { source, destination, len };
    let expected =
        vec![segment(5120, 10_240, 1536), segment(0, 512 << 40, 33_553_920), segment(4096, 4608, 1024)];
    assert_eq!(copy, CopyList { id: Some(5), keep: true, segments: expected });
    // Segments are what there is to do: none is no error, and nor is a device that none names.
    assert_eq!(read(&list(&[], &[])).unwrap().segments, []);
    assert_eq!(read(&list(&[device(&[0x60; 16])], &[])).unwrap().segments, []);
}

#[test]
fn list_identifiers() {
    let with = |id: u8, usage: u8| {
        let mut list = list(&[], &[]);
        (list[0], list[1]) = (id, usage << 3);
        list
    };
    assert_eq!(read(&with(9, 0b00)).unwrap().id, Some(9));
    assert_eq!(read(&with(9, 0b10)).unwrap().id, Some(9));
    assert!(read(&with(9, 0b00)).unwrap().keep && !read(&with(9, 0b10)).unwrap().keep);
    assert_eq!(read(&with(0, 0b11)).unwrap().id, None);
    assert_eq!(invalid(&with(9, 0b11)), 0);
    assert_eq!(invalid(&with(9, 0b01)), 1);
}

#[test]
fn lengths() {
    let whole = list(&[device(&NAME)], &[segment(0, 0, 1, 0, 1)]);
    for len in [1, 15, 16 + 31, 16 + 32 + 27] {
        assert_eq!(error(&whole[..len]), (5, 0x1a, 0x00), "{len}");
    }
    // Its sender says that it is longer than what came.
    assert!(parse(16 + 32 + 28, &whole[..70], &NAME, 512).is_err());
    let mut inline = whole.clone();
    inline[15] = 1;
    assert_eq!(error(&inline), (5, 0x26, 0x0b));
    // Both lists together: 8192 bytes at most, which comes before the number of descriptors.
    let many = vec![device(&NAME); 17];
    assert_eq!(error(&list(&many, &[])), (5, 0x26, 0x06));
    assert_eq!(error(&list(&many, &vec![segment(0, 0, 1, 0, 1); 274])), (5, 0x1a, 0x00));
    assert_eq!(error(&list(&many[..1], &vec![segment(0, 0, 1, 0, 1); 257])), (5, 0x26, 0x08));
    assert_eq!(read(&list(&many[..16], &vec![segment(0, 0, 1, 0, 1); 256])).unwrap().segments.len(), 256);
    // A list whose lengths add up to more than 32 bits can say.
    let mut wrapping = whole;
    wrapping[8..12].fill(0xff);
    assert_eq!(error(&wrapping), (5, 0x1a, 0x00));
}

#[test]
fn devices_that_are_not_this_one() {
    let copy = |device: Vec<u8>| list(&[device], &[segment(0, 0, 1, 0, 1)]);
    let changed = |at: usize, value| {
        let mut device = device(&NAME);
        device[at] = value;
        copy(device)
    };
    assert_eq!(error(&changed(0, 0xe0)), (5, 0x26, 0x07)); // another type of descriptor
    assert_eq!(invalid(&changed(1, 0xc0)), 17); // LU ID TYPE
    assert_eq!(invalid(&changed(7, 21)), 23);
    assert_eq!(invalid(&changed(30, 0x10)), 45); // blocks of 4096
    let not_reachable = (0x0a, 0x0d, 0x02);
    for list in [
        changed(1, 0x20), // NUL
        changed(1, 0x05), // a CD drive
        changed(4, 0x02),
        changed(5, 0x13), // a port's name
        changed(5, 0x02),
        changed(7, 15),
        changed(23, 0xe5),
        copy(device(&[0x60; 16])),
        list(&[device(&NAME)], &[segment(0, 1, 1, 0, 1)]), // there is no device 1
        list(&[device(&NAME)], &[segment(0xffff, 0, 1, 0, 1)]),
    ] {
        assert_eq!(error(&list), not_reachable);
    }
    // Which segment it was: the second.
    let two = [segment(0, 0, 1, 0, 1), segment(0, 1, 1, 0, 1)];
    let sense = read(&list(&[device(&NAME), device(&[0x60; 16])], &two)).unwrap_err();
    assert_eq!(sense[..12], [0x70, 0, 0x0a, 0, 0, 0, 0, 0x0a, 0, 0, 0, 1]);
    // So far away that bytes cannot say it.
    assert_eq!(error(&list(&[device(&NAME)], &[segment(0, 0, 1, u64::MAX, 0)])), not_reachable);
    assert_eq!(error(&list(&[device(&NAME)], &[segment(0, 0, 1, 0, 1 << 55)])), not_reachable);
}

#[test]
fn segments_of_other_kinds() {
    let copy = |segment: Vec<u8>| list(&[device(&NAME)], &[segment]);
    let changed = |at: usize, value| {
        let mut segment = segment(0, 0, 1, 0, 1);
        segment[at] = value;
        copy(segment)
    };
    assert_eq!(error(&changed(0, 0x03)), (5, 0x26, 0x09));
    assert_eq!(error(&copy(vec![0x03; 20])), (5, 0x26, 0x09));
    assert_eq!(invalid(&changed(3, 0x1c)), 50);
    assert_eq!(invalid(&copy(bytes_segment(100, (0, 0), (1, 0)))), 48 + 8); // not whole blocks
    assert_eq!(invalid(&copy(bytes_segment(512, (0, 1), (1, 0)))), 48 + 28);
    assert_eq!(invalid(&copy(bytes_segment(512, (0, 0), (1, 1)))), 48 + 30);
    assert_eq!(invalid(&copy(bytes_segment(0x0200_0200, (0, 0), (1, 0)))), 48 + 8); // over 32 MiB
}

#[test]
fn what_a_copy_has_come_to() {
    let mut out = Vec::new();
    status(CopyState::Running, Progress { segments: 3, bytes: 0x0102_0304 }, &mut out);
    assert_eq!(out, [0, 0, 0, 8, 0, 0, 3, 0, 1, 2, 3, 4]);
    out.clear();
    status(CopyState::Good, Progress { segments: 258, bytes: 5 << 32 }, &mut out);
    assert_eq!(out, [0, 0, 0, 8, 1, 1, 2, 2, 0, 0, 0x50, 0]); // in mebibytes
    out.clear();
    failed_segment_details(CopyState::Good, &mut out);
    assert_eq!(out, [0; 4]);
    out.clear();
    let state = CopyState::Failed(0x02, Some(failed(7)));
    status(state, Progress::default(), &mut out);
    assert_eq!(out[..5], [0, 0, 0, 8, 2]);
    out.clear();
    failed_segment_details(state, &mut out);
    assert_eq!(out.len(), 78);
    assert_eq!(out[..4], [0, 0, 0, 74]);
    assert_eq!(out[4..56], [0; 52]);
    assert_eq!(out[56..60], [2, 0, 0, 18]);
    assert_eq!(out[60..], [0x70, 0, 0x0a, 0, 0, 0, 0, 10, 0, 0, 0, 7, 0x0d, 0x01, 0, 0, 0, 0]);
}

#[test]
fn operating_parameters_are_what_is_enforced() {
    let mut out = Vec::new();
    operating_parameters(512, &mut out);
    let mut expected = [0; 47];
    expected[3] = 43;
    expected[4] = 1; // SNLID
    expected[9] = 16; // CSCD descriptors
    expected[10] = 1; // 256 segment descriptors
    expected[14] = 0x20; // 8192 bytes
    expected[16] = 0x02; // 32 MiB
    expected[35] = 8;
    expected[36] = 8;
    expected[37] = 9; // 2^9 bytes
    expected[43] = 3;
    expected[44..].copy_from_slice(&[0x02, 0x0a, 0xe4]);
    assert_eq!(out, expected);
    out.clear();
    operating_parameters(4096, &mut out);
    assert_eq!(out[37], 12);
}

proptest! {
    #[test]
    fn any_bytes_are_answered(mut bytes in prop::collection::vec(any::<u8>(), 0..400), devices in 0_u8..3) {
        if bytes.len() > 15 {
            bytes[2..16].fill(0);
            bytes[3] = devices * 32;
            bytes[11] = 28 * 3;
        }
        let _ = read(&bytes);
    }
}
