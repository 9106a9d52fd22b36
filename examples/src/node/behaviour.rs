//! How well a node serves, which can be changed while it runs.

use std::time::Duration;

use serde_json::{Value, json};

/// The longest delay: a day.
pub(super) const MOST_MS: u64 = 24 * 3600 * 1000;

/// How slow and how faulty the answers are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Behaviour {
    /// How long each answer takes.
    pub delay: Duration,
    /// Which part of the requests, from 0 to 1, is answered with 500.
    pub fail_rate: f64,
    /// Whether an answer with 500 takes as long as the others; otherwise it comes at once.
    pub fails_slowly: bool,
}

impl Behaviour {
    /// The same with what a JSON object such as `{"delay_ms":20,"fail_rate":0.1}` says; what it does
    /// not name stays.
    ///
    /// # Errors
    /// What is wrong with it, naming the field and the value. Nothing of it counts then.
    pub fn changed(mut self, json: &[u8]) -> Result<Self, String> {
        let value: Value =
            serde_json::from_slice(json).map_err(|error| format!("not JSON: {error}"))?;
        let Value::Object(fields) = value else {
            return Err(format!("not an object: {value}"));
        };
        for (name, value) in &fields {
            match name.as_str() {
                "delay_ms" => match value.as_u64() {
                    Some(delay @ 0..=MOST_MS) => self.delay = Duration::from_millis(delay),
                    _ => {
                        return Err(format!(
                            "delay_ms {value}: must be a whole number from 0 to {MOST_MS}"
                        ));
                    }
                },
                "fail_rate" => match value.as_f64() {
                    Some(rate) if (0.0..=1.0).contains(&rate) => self.fail_rate = rate,
                    _ => return Err(format!("fail_rate {value}: must be a number from 0 to 1")),
                },
                _ => return Err(format!("field {name:?} is not known")),
            }
        }
        Ok(self)
    }

    /// As the JSON object that asks for it.
    pub fn to_json(self) -> Value {
        json!({ "delay_ms": self.delay.as_millis(), "fail_rate": self.fail_rate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_changes_and_the_rest_stays() {
        let behaviour = Behaviour::default().changed(br#"{"delay_ms":20}"#).unwrap();
        assert_eq!(behaviour.delay, Duration::from_millis(20));
        let behaviour = behaviour.changed(br#"{"fail_rate":1}"#).unwrap();
        assert_eq!(behaviour.to_json(), json!({ "delay_ms": 20, "fail_rate": 1.0 }));
        assert_eq!(behaviour.changed(b"{}").unwrap(), behaviour);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (wrong, parts) in [
            ("{", ["not JSON", "line 1"]),
            ("", ["not JSON", "EOF"]),
            ("[1]", ["not an object", "[1]"]),
            (r#"{"delay_ms":-1}"#, ["delay_ms", "-1"]),
            (r#"{"delay_ms":1.5}"#, ["delay_ms", "1.5"]),
            (r#"{"delay_ms":"5"}"#, ["delay_ms", "\"5\""]),
            (r#"{"delay_ms":99999999999}"#, ["delay_ms", "99999999999"]),
            (r#"{"fail_rate":1.01}"#, ["fail_rate", "1.01"]),
            (r#"{"fail_rate":null}"#, ["fail_rate", "null"]),
            (r#"{"delay":5}"#, ["delay", "not known"]),
        ] {
            let error = Behaviour::default().changed(wrong.as_bytes()).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{wrong}: {error}");
        }
    }
}
