//! What a pool's data lies on, from the monitors: as tcmu-runner tells initiators.
//!
//! A pool's CRUSH rule may take devices of one class only; then that is what is known. Two questions, which
//! `profile rbd` allows; without an answer nothing is known, which is no error.

use super::cluster::Cluster;
use super::ffi::RawImage;

/// Classes of devices that do not rotate.
const SOLID: [&str; 2] = ["ssd", "nvme"];

/// Whether all data of the image is on solid-state devices for certain. Blocks, for the monitors' time-out
/// at most twice.
pub(super) fn is_solid_state(cluster: &Cluster, image: &RawImage) -> bool {
    let pool = image.data_pool().and_then(|id| cluster.rados().pool_name(id));
    let asked = pool.map_err(|errno| errno.to_string()).and_then(|pool| {
        let question = format!(
            r#"{{"prefix":"osd pool get","pool":"{}","var":"crush_rule","format":"json"}}"#,
            escaped(&pool)
        );
        let answer = ask(cluster, &question)?;
        let rule = strings(&answer, "crush_rule").next().ok_or("the pool has no rule")?;
        ask(cluster, &format!(r#"{{"prefix":"osd crush rule dump","name":"{rule}","format":"json"}}"#))
    });
    match asked {
        Ok(rule) => takes_only_solid(&rule),
        Err(error) => {
            tracing::debug!("what the image lies on is not known: {error}");
            false
        }
    }
}

fn ask(cluster: &Cluster, question: &str) -> Result<String, String> {
    let answer = cluster.mon_command(question).map_err(|error| error.to_string())?;
    String::from_utf8(answer).map_err(|error| error.to_string())
}

/// Whether each "take" step of a rule takes a class that does not rotate: its item is `ROOT~CLASS` then. No
/// other step has an item with a name.
fn takes_only_solid(rule: &str) -> bool {
    let mut items = strings(rule, "item_name").peekable();
    let is_solid = |item: &str| item.rsplit_once('~').is_some_and(|(_, class)| SOLID.contains(&class));
    items.peek().is_some() && items.all(is_solid)
}

/// The values of a key anywhere in JSON. For names of CRUSH, which have no character that JSON escapes.
fn strings<'a>(json: &'a str, key: &str) -> impl Iterator<Item = &'a str> {
    let key = format!("\"{key}\"");
    json.match_indices(&key).map(|(at, key)| at + key.len()).collect::<Vec<_>>().into_iter().filter_map(
        move |at| {
            let value = json[at..].trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
            value.split('"').next()
        },
    )
}

/// A name as the inside of a JSON string.
fn escaped(name: &str) -> String {
    name.chars().fold(String::new(), |mut json, c| {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            c if c < ' ' => json.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => json.push(c),
        }
        json
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = r#"{"rule_id":0,"rule_name":"item_name","steps":[{"op":"take","item":-1,"item_name":"ROOT"},{"op":"chooseleaf_firstn","num":0,"type":"host"},{"op":"emit"}]}"#;

    #[test]
    fn only_a_rule_of_solid_classes_is_solid() {
        for (root, solid) in [
            ("default", false),
            ("default~hdd", false),
            ("default~ssd", true),
            ("default~nvme", true),
            ("ssd", false),
            ("ssd~hdd", false),
            ("default~ssd2", false),
        ] {
            assert_eq!(takes_only_solid(&RULE.replace("ROOT", root)), solid, "{root}");
        }
        // The first copy on one class, the others on another.
        let mixed = [RULE.replace("ROOT", "default~ssd"), RULE.replace("ROOT", "default~hdd")].concat();
        assert!(!takes_only_solid(&mixed));
        assert!(!takes_only_solid(r#"{"steps":[]}"#));
        assert!(!takes_only_solid(""));
    }

    #[test]
    fn values_are_found_with_and_without_spaces() {
        let json = "{\"pool\":\"crush_rule\",\n \"crush_rule\" : \"fast\",\"pool_id\":1}";
        assert_eq!(strings(json, "crush_rule").collect::<Vec<_>>(), ["fast"]);
        assert_eq!(strings(json, "pool_id").count(), 0);
    }

    #[test]
    fn names_cannot_end_the_string() {
        assert_eq!(escaped(r#"a"b\c"#), r#"a\"b\\c"#);
        assert_eq!(escaped("a\u{1}é"), r"a\u0001é");
    }
}
