//! The grammar as a table: what the incumbent serves, and what each mistake is called.

use super::*;
use proptest::prelude::*;

fn plain(pool: &str, image: &str) -> CfgString {
    CfgString { pool: pool.into(), image: image.into(), ..CfgString::default() }
}

#[test]
fn takes_what_the_incumbent_serves() {
    let timeout = |seconds| CfgString {
        osd_op_timeout: Some(Duration::from_secs_f64(seconds)),
        ..plain("rbd", "disk_1")
    };
    let full =
        CfgString { conf: Some("/etc/ceph/other.conf".into()), id: Some("iscsi.gw".into()), ..timeout(30.0) };
    let command = CfgString { cmd_time_out: Some(20), ..plain("rbd", "disk_1") };
    let both = CfgString { cmd_time_out: Some(20), ..timeout(30.0) };
    let table = [
        ("rbd/disk_1", plain("rbd", "disk_1")),
        ("/rbd/disk_1", plain("rbd", "disk_1")),
        ("///rbd/disk_1;", plain("rbd", "disk_1")),
        ("rbd/ns/disk_1", plain("rbd", "ns/disk_1")),
        ("rbd/disk_1;osd_op_timeout=30", timeout(30.0)),
        ("rbd/disk_1;;osd_op_timeout=0.5;", timeout(0.5)),
        ("rbd/disk_1;osd_op_timeout=5;osd_op_timeout=30", timeout(30.0)),
        ("rbd/disk_1;id=iscsi.gw;conf=/etc/ceph/other.conf;osd_op_timeout=30", full),
        (";tcmur_cmd_time_out=20;rbd/disk_1", command.clone()),
        ("tcmur_cmd_time_out=20;rbd/disk_1", command.clone()),
        ("rbd/disk_1;tcmur_cmd_time_out=20", command),
        ("rbd/disk_1;tcmur_cmd_time_out=20;osd_op_timeout=30", both),
    ];
    for (text, want) in table {
        assert_eq!(CfgString::parse(text), Ok(want), "{text}");
    }
}

/// Found by fuzzing.
#[test]
fn a_pool_that_looks_like_an_option_is_printed_so_that_it_is_none() {
    let parsed = CfgString::parse("//tcmur_cmd_time_out=5/img").unwrap();
    assert_eq!(parsed, plain("tcmur_cmd_time_out=5", "img"));
    assert_eq!(CfgString::parse(&parsed.to_string()), Ok(parsed));
}

#[test]
fn lists_what_it_skips() {
    let table = [
        ("readonly", CfgError::UnknownOption { option: "readonly".into() }),
        ("tcmur_cmd_timeout=3", CfgError::UnknownOption { option: "tcmur_cmd_timeout=3".into() }),
        ("x=", CfgError::UnknownOption { option: "x=".into() }),
        ("osd_op_timeout=30s", CfgError::NotSeconds { key: "osd_op_timeout".into(), value: "30s".into() }),
        ("osd_op_timeout=-1", CfgError::NotSeconds { key: "osd_op_timeout".into(), value: "-1".into() }),
        ("osd_op_timeout=inf", CfgError::NotSeconds { key: "osd_op_timeout".into(), value: "inf".into() }),
        (
            "tcmur_cmd_time_out=x",
            CfgError::NotSeconds { key: "tcmur_cmd_time_out".into(), value: "x".into() },
        ),
    ];
    for (option, skipped) in table {
        let parsed = CfgString::parse(&format!("rbd/img;{option}")).unwrap();
        assert_eq!(parsed, CfgString { skipped: vec![skipped], ..plain("rbd", "img") });
    }
}

#[test]
fn says_what_is_missing() {
    let table = [
        ("rbd", CfgError::NoPool),
        ("rbd/", CfgError::NoPool),
        ("rbd/;osd_op_timeout=30", CfgError::NoImage { pool: "osd_op_timeout=30".into() }),
        ("rbd//", CfgError::NoPool),
        ("rbd/img", CfgError::NoImage { pool: "img".into() }),
        ("rbd/img/", CfgError::NoImage { pool: "img".into() }),
        ("rbd/p/i;id=", CfgError::NoValue { key: "id".into() }),
        ("rbd/p/i;conf=", CfgError::NoValue { key: "conf".into() }),
        ("rbd/p/i;osd_op_timeout=", CfgError::NoValue { key: "osd_op_timeout".into() }),
        ("foo/p/i", CfgError::Subtype { found: "foo".into() }),
        ("rb/p/i", CfgError::Subtype { found: "rb".into() }),
        ("", CfgError::Subtype { found: String::new() }),
    ];
    for (text, want) in table {
        assert_eq!(parse_dev_config(text), Err(want.clone()), "{text}");
        assert_eq!(check(text), Err(want), "{text}");
    }
}

#[test]
fn check_is_content() {
    let longest = format!("rbd/rbd/{}", "i".repeat(247));
    assert_eq!(longest.len(), 255);
    for text in [
        "rbd/rbd/img",
        "rbd/rbd/disk_1;osd_op_timeout=30;conf=/etc/ceph/a.conf;id=iscsi.x",
        "rbd/;tcmur_cmd_time_out=5;rbd/img",
        "rbd/rbd/img;future=1",
        &longest,
    ] {
        assert_eq!(check(text), Ok(()), "{text}");
    }
}

#[test]
fn what_is_taken_otherwise_than_meant_is_warned_of() {
    let unknown = "is not known; known are osd_op_timeout, conf, id and tcmur_cmd_time_out";
    let short = "is not longer than a dead OSD stays unnoticed";
    for (text, parts) in [
        ("rbd/rbd/img", vec![]),
        ("rbd/rbd/img;osd_op_timeout=27;conf=/etc/ceph/a@b.conf;id=a@b", vec![]),
        ("rbd/rbd/img;foo=1", vec![format!("ignored: the option \"foo=1\" {unknown}")]),
        ("rbd/rbd/img;conf", vec![format!("ignored: the option \"conf\" {unknown}")]),
        ("rbd/rbd/img;osd_op_timeout=26", vec![format!("osd_op_timeout=26 {short}")]),
        ("rbd/rbd/a@s", vec!["the image \"a@s\" has an @ in it: snapshots are not served".to_owned()]),
        (
            "rbd/rbd/a@s;x;osd_op_timeout=0.5",
            vec!["ignored: the option \"x\"".into(), "osd_op_timeout=0.5 ".into(), "the image ".into()],
        ),
    ] {
        assert_eq!(check(text), Ok(()), "{text}: as targetcli takes it");
        let found = warnings(text).unwrap();
        assert_eq!(found.len(), parts.len(), "{text}: {found:?}");
        for (found, part) in found.iter().zip(&parts) {
            assert!(found.starts_with(part), "{text}: {found}");
        }
    }
}

#[test]
fn check_refuses_what_would_be_garbled() {
    let table = [
        ("rbd/rbd/a,b", "',' at byte 9 cannot be used: the kernel takes it for the end of the string"),
        ("rbd/rbd/a:b", "':' at byte 9 cannot be used: rtslib refuses it"),
        ("rbd/rbd/a b", "' ' at byte 9 cannot be used: rtslib cuts the string there when it saves it"),
        ("rbd/rbd/a\n", "'\\n' at byte 9 cannot be used: rtslib cuts the string there when it saves it"),
        ("rbd/rbd/a\u{1}", "'\\u{1}' at byte 9 cannot be used: it is a control character"),
        (
            "rbd/rbd/ns/img",
            "the image \"ns/img\" has a slash in it; RADOS namespaces are not supported, write POOL/IMAGE",
        ),
        (
            "rbd/rbd/img;osd_op_timeout=30s",
            "the option osd_op_timeout has the value \"30s\", which is not a number of seconds; \
             write osd_op_timeout=30",
        ),
        ("rbd/rbd/img;id=", "the option id has no value; write id=admin"),
        ("rbd/img", "the image is missing after \"img\"; write POOL/IMAGE"),
        ("foo/bar", "the handler is \"foo\"; this daemon serves \"rbd\", as in rbd/POOL/IMAGE"),
    ];
    for (text, sentence) in table {
        assert_eq!(check(text).unwrap_err().to_string(), sentence);
    }
}

#[test]
fn check_counts_bytes_of_the_whole_string() {
    // 8 bytes of "rbd/rbd/", then 124 letters of two bytes each
    let text = format!("rbd/rbd/{}", "\u{e9}".repeat(124));
    assert_eq!(check(&text), Err(CfgError::TooLong { length: 256 }));
}

proptest! {
    #[test]
    fn parse_undoes_display(
        pool in "[a-zA-Z0-9_.-]{1,20}",
        image in "[a-zA-Z0-9_.-]{1,20}",
        milliseconds in prop::option::of(0u64..10_000_000),
        conf in prop::option::of("/[a-z/.=]{1,20}"),
        id in prop::option::of("[a-z.=]{1,12}"),
        cmd_time_out: Option<u32>,
    ) {
        let value = CfgString {
            osd_op_timeout: milliseconds.map(Duration::from_millis),
            conf: conf.map(PathBuf::from),
            id,
            cmd_time_out,
            ..plain(&pool, &image)
        };
        prop_assert_eq!(CfgString::parse(&value.to_string()), Ok(value.clone()));
        prop_assert_eq!(parse_dev_config(&format!("rbd/{value}")), Ok(value));
    }

    #[test]
    fn arbitrary_text_never_panics(text in ".{0,300}") {
        let _ = CfgString::parse(&text);
        let _ = check(&text);
        let _ = check(&format!("rbd/{text}"));
    }

    #[test]
    fn what_check_accepts_is_whole(text in "/{0,2}[a-z;]{1,5}/[a-z]{0,3}(;[a-z=0-9]{0,6}){0,3}") {
        let text = format!("rbd/{text}");
        let whole = |parsed: CfgString| !parsed.pool.is_empty() && !parsed.image.is_empty();
        prop_assert!(check(&text).is_err() || parse_dev_config(&text).is_ok_and(whole));
    }
}
