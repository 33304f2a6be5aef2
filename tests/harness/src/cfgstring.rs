//! Any text as a configuration string. Layout: the text.

use handler_rbd::cfgstring::{CfgError, CfgString, check, parse_dev_config};

/// Longest `dev_config` (`TCMU_CONFIG_LEN` 256, less its NUL).
const LONGEST: usize = 255;

/// What became of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// As a new device's.
    pub checked: Result<(), CfgError>,
    /// As that of a device there is.
    pub parsed: Result<CfgString, CfgError>,
}

/// Runs one input; what became of it.
pub fn run(bytes: &[u8]) -> End {
    let text = String::from_utf8_lossy(bytes);
    let end = End { checked: check(&text), parsed: parse_dev_config(&text) };
    end.checked.as_ref().err().into_iter().chain(end.parsed.as_ref().err()).for_each(is_a_sentence);
    if let Ok(parsed) = &end.parsed {
        parsed.skipped.iter().for_each(is_a_sentence);
        assert!(text.starts_with("rbd/") && text.contains(&*parsed.pool) && text.contains(&*parsed.image));
        assert!(!parsed.pool.is_empty() && !parsed.pool.contains(['/', ';']), "{parsed:?}");
        assert!(!parsed.image.is_empty() && !parsed.image.contains(';'), "{parsed:?}");
        let whole = CfgString { skipped: vec![], ..parsed.clone() };
        let printed = parsed.to_string();
        assert_eq!(CfgString::parse(&printed), Ok(whole.clone()), "{printed}");
        assert_eq!(parse_dev_config(&format!("rbd/{printed}")), Ok(whole), "{printed}");
    }
    if end.checked.is_ok() {
        let parsed = end.parsed.as_ref().expect("what is good for a new device is served");
        assert!(text.len() <= LONGEST && !parsed.image.contains('/'), "{text}");
        assert!(
            !text.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, ',' | ':')),
            "{text}"
        );
    }
    end
}

/// What is wrong is said in one printable line, whatever the text holds.
fn is_a_sentence(error: &CfgError) {
    let sentence = error.to_string();
    assert!(sentence.len() > 10 && !sentence.contains(char::is_control), "{sentence:?}");
}
