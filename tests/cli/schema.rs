//! The JSON Schema of `status --json`: it takes every status, and no field that it does not name.
//! What real processes of each role answer is validated end to end.

use crate::validator::refused;

/// A status with every field and one of each list.
const EXAMPLE: &str = include_str!("../../src/daemon/status/example.json");

#[test]
fn schema_has_every_field_of_the_interface_and_no_other() {
    assert_eq!(refused(EXAMPLE), None);
    // Each object of the example, with a field more, and with one less.
    let whole: serde_json::Value = serde_json::from_str(EXAMPLE).unwrap();
    let optional = ["/services/1/device", "/services/1/addresses"];
    let mut changed = 0;
    for at in objects(&whole, "") {
        // Here keys are data.
        if ["/tags", "/loops", "/counters"].contains(&&*at) {
            continue;
        }
        let fields = whole.pointer(&at).unwrap().as_object().unwrap();
        let names: Vec<String> = fields.keys().cloned().collect();
        let mut more = whole.clone();
        let fields = more.pointer_mut(&at).unwrap().as_object_mut().unwrap();
        fields.insert("new".into(), 1.into());
        assert!(refused(&more.to_string()).is_some(), "{at}/new");
        for name in names {
            let mut less = whole.clone();
            let fields = less.pointer_mut(&at).unwrap().as_object_mut().unwrap();
            fields.remove(&name);
            let field = format!("{at}/{name}");
            let may_lack = optional.contains(&&*field);
            assert_eq!(refused(&less.to_string()).is_none(), may_lack, "{field}");
            changed += 1;
        }
    }
    assert!(changed > 70, "{changed}");
}

/// Pointers to the objects in the value.
fn objects(value: &serde_json::Value, at: &str) -> Vec<String> {
    let inner: Vec<String> = match value {
        serde_json::Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, field)| objects(field, &format!("{at}/{name}")))
            .collect(),
        serde_json::Value::Array(items) => (items.iter().enumerate())
            .flat_map(|(index, item)| objects(item, &format!("{at}/{index}")))
            .collect(),
        _ => return Vec::new(),
    };
    let own = value.is_object().then(|| at.to_owned());
    own.into_iter().chain(inner).collect()
}
