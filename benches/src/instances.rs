//! Instances as a source gets them: each decoded from some 200 bytes of JSON of its own, so that no
//! two share anything.

use std::sync::Arc;

use discovery_core::{Instance, InstanceKey};

/// How many bytes of JSON an instance has.
pub const JSON_BYTES: usize = 200;

/// How many versions an instance has, each of another weight.
pub const VERSIONS: usize = 60_000;

/// The JSON of instance `number`; `version` counts modulo [`VERSIONS`].
///
/// # Panics
/// If the number is so large that it does not fit into [`JSON_BYTES`].
pub fn json(number: usize, version: usize) -> String {
    let (high, low) = (number / 250 % 250, number % 250);
    let weight = 1 + version % VERSIONS;
    let mut text = format!(
        concat!(
            r#"{{"id":"orders-{:06}","name":"orders","address":"http://10.1.{}.{}:8080","#,
            r#""weight":{},"zone":"eu-1a","status":"up","metadata":{{"version":"1.4.2","build":""#
        ),
        number, high, low, weight
    );
    let end = "\"}}";
    let fill = JSON_BYTES.checked_sub(text.len() + end.len()).expect("fits into its size");
    text.extend(std::iter::repeat_n('b', fill));
    text + end
}

/// Instance `number`, decoded.
///
/// # Panics
/// As [`json`].
pub fn instance(number: usize, version: usize) -> (InstanceKey, Arc<Instance>) {
    let instance: Instance =
        serde_json::from_str(&json(number, version)).expect("it is the JSON of an instance");
    (instance.key(), Arc::new(instance))
}

/// The first `count` instances, as a source would hand them over.
pub fn instances(count: usize) -> Vec<(InstanceKey, Arc<Instance>)> {
    (0..count).map(|number| instance(number, 0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_have_their_size_and_differ() {
        for (number, version) in [(0, 0), (99_999, VERSIONS - 1), (130_000, 7)] {
            assert_eq!(json(number, version).len(), JSON_BYTES);
        }
        let (key, value) = instance(7, 0);
        assert_eq!(key.to_string(), "orders/orders-000007");
        let (same_key, other) = instance(7, 1);
        assert_eq!(key, same_key);
        assert_ne!(value, other);
        assert_ne!(instance(8, 0).0, key);
    }
}
