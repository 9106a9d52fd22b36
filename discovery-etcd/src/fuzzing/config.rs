//! The configuration of etcd, as a file can have it.

use super::one_line;
use crate::EtcdConfig;
use crate::config::Credentials;

const PASSWORD: &str = "never-told-to-anybody";

/// A configuration (as JSON) is refused in one line that does not tell its password, or is the same
/// when what was checked is written, read and checked again.
pub fn config(data: &[u8]) -> bool {
    let Ok(mut config) = serde_json::from_slice::<EtcdConfig>(data) else { return false };
    if format!("{config:?}").contains(PASSWORD) {
        return false;
    }
    if let Some(credentials) = &mut config.credentials {
        let (user, password) = credentials.parts();
        let password = if password.is_empty() { "" } else { PASSWORD };
        *credentials = Credentials::new(user.to_owned(), password.to_owned());
    }
    let shown = format!("{config:?}");
    let checked = match config.checked() {
        Ok(checked) => checked,
        Err(error) => {
            // It names the value, which is as long as it is.
            one_line(&error, 1000 + 10 * data.len());
            assert!(!shown.contains(PASSWORD) && !error.to_string().contains(PASSWORD));
            return false;
        }
    };
    let json = serde_json::to_string(&checked).unwrap();
    let mut read: EtcdConfig = serde_json::from_str(&json).unwrap();
    read.credentials.clone_from(&checked.credentials);
    assert_eq!(serde_json::to_string(&read.checked().unwrap()).unwrap(), json);
    for text in [shown, format!("{checked:?}"), json] {
        assert!(!text.contains(PASSWORD), "{text}");
    }
    true
}
