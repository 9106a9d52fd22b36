//! Where etcd is and how to talk to it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use discovery_core::Invalid;
use serde::{Deserialize, Serialize};

use crate::format::{FormatName, escaped};

/// A configuration that cannot work. The message is one line and names the setting and the value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No etcd endpoint is given.
    #[error("no etcd endpoint is given")]
    NoEndpoint,
    /// A setting has a value it does not take.
    #[error("{setting} {value:?}: {reason}")]
    Invalid {
        /// The setting, in a word: `etcd endpoint`, `format`, `prefix`, `ttl`, `suspects`, `audit`,
        /// `user`.
        setting: &'static str,
        /// The value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file cannot be used.
    #[error("{setting} {}: {reason}", shown(path))]
    File {
        /// The setting, in a word: `ca`, `cert`, `key`.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no tokio runtime to run on.
    #[error("no tokio runtime: an etcd registry must be made within one")]
    NoRuntime,
}

impl ConfigError {
    fn invalid(setting: &'static str, value: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { setting, value: value.into(), reason: reason.into() }
    }
}

/// Where etcd is and how to talk to it. As a configuration file (TOML here) all but the endpoints may
/// be left out:
///
/// ```toml
/// endpoints = ["http://10.0.0.1:2379", "http://10.0.0.2:2379"]
/// format = "native"
/// prefix = "/services"
/// ttl-seconds = 15
/// suspect-seconds = 10
/// audit-seconds = 300
/// follow-members = false
/// credentials = { user = "orders", password = "…" } # never written back
/// ca-file = "/etc/etcd/ca.pem" # this and the next two with the feature `tls`
/// cert-file = "/etc/etcd/client.pem"
/// key-file = "/etc/etcd/client-key.pem"
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EtcdConfig {
    pub(crate) endpoints: Vec<String>,
    #[serde(default = "default_format")]
    pub(crate) format: String,
    #[serde(default = "default_prefix")]
    pub(crate) prefix: String,
    #[serde(default = "default_ttl")]
    pub(crate) ttl_seconds: u64,
    #[serde(default = "default_suspect")]
    pub(crate) suspect_seconds: u64,
    #[serde(default = "default_audit")]
    pub(crate) audit_seconds: u64,
    #[serde(default)]
    pub(crate) follow_members: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) credentials: Option<Credentials>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cert_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key_file: Option<PathBuf>,
}

fn default_format() -> String {
    FormatName::default().into()
}

fn default_prefix() -> String {
    "/services".to_owned()
}

fn default_ttl() -> u64 {
    15
}

fn default_suspect() -> u64 {
    10
}

fn default_audit() -> u64 {
    300
}

impl EtcdConfig {
    /// etcd at these client URLs (`http://host:port`, or `https://…` with the feature `tls`; without
    /// a scheme `http`, or `https` when a CA file is set). They are used one at a time; another one
    /// is taken when the one in use fails.
    pub fn new<S: Into<String>>(endpoints: impl IntoIterator<Item = S>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            format: default_format(),
            prefix: default_prefix(),
            ttl_seconds: default_ttl(),
            suspect_seconds: default_suspect(),
            audit_seconds: default_audit(),
            follow_members: false,
            credentials: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
        }
    }

    /// How instances stand in etcd: `native` (the default) or `heartbeat`; see
    /// [`FormatName`](crate::format::FormatName). For one of your own there is
    /// [`EtcdRegistry::with_format`](crate::EtcdRegistry::with_format).
    #[must_use]
    pub fn format(mut self, name: impl Into<String>) -> Self {
        self.format = name.into();
        self
    }

    /// Under which prefix the keys of the native format are: `PREFIX/SERVICE/ID`. Default `/services`.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The user to authenticate as.
    #[must_use]
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Some(Credentials::new(user.into(), password.into()));
        self
    }

    /// The certificates of the authorities to trust (PEM). Needs the feature `tls` and `https`
    /// endpoints. Without it the system's are used. Read anew for each connection.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// The certificate and key to show to etcd (PEM). Needs the feature `tls` and `https` endpoints.
    /// Read anew for each connection.
    #[must_use]
    pub fn client_certificate_files(
        mut self,
        cert: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.cert_file = Some(cert.into());
        self.key_file = Some(key.into());
        self
    }

    /// How long a registration outlives its process, in whole seconds (rounded up). Default 15 s;
    /// etcd grants no less than 1.5 election timeouts, 2 s by its default.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl_seconds = whole_seconds(ttl);
        self
    }

    /// For how long instances that vanish together are kept as suspects, in whole seconds (rounded
    /// up); see [`discovery_core::stabilise`]. Default 10 s; zero turns that off.
    #[must_use]
    pub fn suspects_for(mut self, time: Duration) -> Self {
        self.suspect_seconds = whole_seconds(time);
        self
    }

    /// How often what a watch knows is held against the keys and revisions that etcd has, in whole
    /// seconds (rounded up), more or less a fifth. It is the last line of defence against events that
    /// were lost on the way, by whatever error of a server's. Default 5 min; zero turns it off.
    #[must_use]
    pub fn audit_every(mut self, time: Duration) -> Self {
        self.audit_seconds = whole_seconds(time);
        self
    }

    /// Ask the cluster for its members, when connected and every minute after: new members are used,
    /// and endpoints that are none any more only when no member answers. Off by default, since what
    /// members call themselves need not be an address that can be reached from here.
    #[must_use]
    pub fn follow_members(mut self, follow: bool) -> Self {
        self.follow_members = follow;
        self
    }

    /// See [`audit_every`](Self::audit_every).
    pub(crate) fn audit(&self) -> Option<Duration> {
        (self.audit_seconds > 0).then(|| Duration::from_secs(self.audit_seconds))
    }

    /// Checks all that can be checked without talking to etcd, and puts it into canonical form.
    pub(crate) fn checked(mut self) -> Result<Self, ConfigError> {
        if self.endpoints.is_empty() {
            return Err(ConfigError::NoEndpoint);
        }
        let secure = self.ca_file.is_some() || self.cert_file.is_some();
        for endpoint in &mut self.endpoints {
            *endpoint = check_endpoint(endpoint, secure)?;
        }
        self.format_name()?;
        self.prefix = check_prefix(&self.prefix)?;
        if !(1..=LONGEST_TTL).contains(&self.ttl_seconds) {
            let reason = format!("must be 1 to {LONGEST_TTL} s");
            return Err(ConfigError::invalid("ttl", self.ttl_seconds.to_string(), reason));
        }
        for (setting, seconds) in
            [("suspects", self.suspect_seconds), ("audit", self.audit_seconds)]
        {
            // Longer than the clock goes it could not be waited.
            if seconds > LONGEST {
                let reason = format!("must be at most {LONGEST} s; 0 turns it off");
                return Err(ConfigError::invalid(setting, seconds.to_string(), reason));
            }
        }
        if let Some(Credentials { user, password }) = &self.credentials {
            if user.is_empty() {
                return Err(ConfigError::invalid("user", "", "must not be empty"));
            }
            if password.is_empty() {
                return Err(ConfigError::invalid("user", user, "its password is missing"));
            }
        }
        match (&self.cert_file, &self.key_file) {
            (Some(cert), None) => {
                return Err(file("cert", cert, "a client certificate needs its key"));
            }
            (None, Some(key)) => return Err(file("key", key, "a key needs its certificate")),
            _ => {}
        }
        #[cfg(feature = "tls")]
        crate::tls::check(&self)?;
        #[cfg(not(feature = "tls"))]
        for (setting, path) in [("ca", &self.ca_file), ("cert", &self.cert_file)] {
            if let Some(path) = path {
                return Err(file(setting, path, "this program was built without feature \"tls\""));
            }
        }
        Ok(self)
    }

    /// The format that is named.
    pub(crate) fn format_name(&self) -> Result<FormatName, ConfigError> {
        let invalid = |error: Invalid| ConfigError::invalid("format", &self.format, error.reason());
        self.format.parse().map_err(invalid)
    }

    /// The TLS settings for an endpoint, with the files as they are now; `None` for plain text.
    #[cfg(feature = "tls")]
    pub(crate) async fn tls_for(
        &self,
        endpoint: &str,
    ) -> Result<Option<tonic::transport::ClientTlsConfig>, ConfigError> {
        if !endpoint.starts_with("https://") {
            return Ok(None);
        }
        // Files are read off the runtime's threads.
        let config = self.clone();
        match tokio::task::spawn_blocking(move || crate::tls::load(&config)).await {
            Ok(tls) => tls.map(Some),
            Err(error) => Err(ConfigError::invalid("tls", "", error.to_string())),
        }
    }
}

/// A day: an instance that is dead for longer and still there helps nobody, and etcd has a limit too.
pub(crate) const LONGEST_TTL: u64 = 24 * 3600;

/// A year: whoever wants to wait for longer means never.
const LONGEST: u64 = 365 * 24 * 3600;

pub(crate) fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

pub(crate) fn file(
    setting: &'static str,
    path: &std::path::Path,
    reason: impl fmt::Display,
) -> ConfigError {
    ConfigError::File { setting, path: path.to_owned(), reason: reason.to_string() }
}

/// A path for a message of one line: a configuration can name any.
pub(crate) fn shown(path: &std::path::Path) -> String {
    escaped(&path.to_string_lossy()).collect()
}

fn check_endpoint(text: &str, secure: bool) -> Result<String, ConfigError> {
    let invalid = |reason: &str| ConfigError::invalid("etcd endpoint", text, reason);
    let trimmed = text.trim();
    let full = match trimmed.split_once("://") {
        Some(_) => trimmed.to_owned(),
        None if secure => format!("https://{trimmed}"),
        None => format!("http://{trimmed}"),
    };
    // etcd's client URLs are addresses like those of instances.
    let address: discovery_core::Address = full.parse().map_err(|error| {
        let error: Invalid = error;
        ConfigError::invalid("etcd endpoint", text, error.reason())
    })?;
    match address.scheme() {
        "http" if secure => return Err(invalid("certificates are given, so it must be https")),
        "http" => {}
        "https" if cfg!(feature = "tls") => {}
        "https" => return Err(invalid("https needs the feature \"tls\"")),
        _ => return Err(invalid("the scheme must be http or https")),
    }
    if !address.authority().ends_with(|c: char| c.is_ascii_digit())
        || address.authority() == address.host()
        || address.authority().ends_with(']')
    {
        return Err(invalid("the port is missing"));
    }
    Ok(address.to_string())
}

/// With a slash at the front and none at the end, so that `/services/` starts every key of ours.
fn check_prefix(text: &str) -> Result<String, ConfigError> {
    let invalid = |reason: &str| ConfigError::invalid("prefix", text, reason);
    let trimmed = text.trim_end_matches('/');
    if !trimmed.starts_with('/') && !trimmed.is_empty() {
        return Err(invalid("must begin with a slash, as in /services"));
    }
    if trimmed.is_empty() {
        return Err(invalid("must name something, as in /services"));
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(invalid("white space and control characters are not allowed"));
    }
    Ok(trimmed.to_owned())
}

/// A user's name and password. The password is never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Credentials {
    user: String,
    /// Taken from configuration, never written into one.
    #[serde(default, skip_serializing)]
    password: String,
}

impl Credentials {
    pub(crate) fn new(user: String, password: String) -> Self {
        Self { user, password }
    }

    pub(crate) fn parts(&self) -> (&str, &str) {
        (&self.user, &self.password)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(config: EtcdConfig) -> String {
        config.checked().unwrap_err().to_string()
    }

    #[test]
    fn endpoints_are_checked_and_completed() {
        let config = EtcdConfig::new(["10.0.0.1:2379", "http://[::1]:2379/"]).checked().unwrap();
        assert_eq!(config.endpoints, ["http://10.0.0.1:2379", "http://[::1]:2379"]);
        for (bad, why) in [
            ("", "host is missing"),
            ("http://", "host is missing"),
            ("ftp://a:1", "http or https"),
            ("http://a", "port is missing"),
            ("http://[::1]", "port is missing"),
            ("http://a:99999", "port"),
            ("http://a:1/x", "path"),
            ("http://u:p@a:1", "user name"),
        ] {
            let error = refused(EtcdConfig::new([bad]));
            assert!(error.contains(why) && error.contains(&format!("{bad:?}")), "{error}");
        }
        assert_eq!(refused(EtcdConfig::new([""; 0])), "no etcd endpoint is given");
    }

    #[test]
    fn whatever_a_file_is_called_the_error_is_one_line() {
        let config = EtcdConfig::new(["a:1"]).client_certificate_files("", "/a\n\u{1b}b");
        let error = refused(EtcdConfig { cert_file: None, ..config });
        assert_eq!(error, r"key /a\n\u{1b}b: a key needs its certificate");
    }

    #[test]
    fn prefixes_and_times_are_checked() {
        let config = |prefix: &str| EtcdConfig::new(["a:1"]).prefix(prefix);
        assert_eq!(config("/services/").checked().unwrap().prefix, "/services");
        for bad in ["", "/", "//", "/a b", "services"] {
            assert!(refused(config(bad)).starts_with(&format!("prefix {bad:?}")), "{bad}");
        }
        for bad in [Duration::ZERO, Duration::from_secs(LONGEST_TTL + 1), Duration::MAX] {
            assert!(refused(EtcdConfig::new(["a:1"]).ttl(bad)).starts_with("ttl"), "{bad:?}");
        }
        assert_eq!(EtcdConfig::new(["a:1"]).ttl(Duration::from_millis(1500)).ttl_seconds, 2);
        let config = || EtcdConfig::new(["a:1"]);
        assert!(refused(config().suspects_for(Duration::MAX)).starts_with("suspects"));
        assert!(refused(config().audit_every(Duration::MAX)).starts_with("audit"));
        assert!(
            config().suspects_for(Duration::ZERO).audit_every(Duration::ZERO).checked().is_ok()
        );
    }

    #[test]
    fn formats_are_checked() {
        let config = EtcdConfig::new(["a:1"]);
        assert_eq!(config.clone().checked().unwrap().format_name().unwrap(), FormatName::Native);
        let heartbeat = config.clone().format(FormatName::Heartbeat).checked().unwrap();
        assert_eq!(heartbeat.format_name().unwrap(), FormatName::Heartbeat);
        let error = refused(config.format("yaml"));
        assert_eq!(error, r#"format "yaml": not known (known: native, heartbeat)"#);
        let config = r#"{"endpoints":["a:1"],"format":"heartbeat"}"#;
        let config: EtcdConfig = serde_json::from_str(config).unwrap();
        assert_eq!(config.format, "heartbeat");
    }

    #[test]
    fn a_password_is_never_shown() {
        let config = EtcdConfig::new(["a:1"]).credentials("root", "secret");
        assert!(!format!("{config:?}").contains("secret"));
        assert!(!serde_json::to_string(&config).unwrap().contains("secret"));
    }

    #[test]
    fn a_configuration_file_needs_only_endpoints_and_takes_nothing_unknown() {
        let config: EtcdConfig = serde_json::from_str(r#"{"endpoints":["a:1"]}"#).unwrap();
        assert_eq!((config.prefix.as_str(), config.ttl_seconds), ("/services", 15));
        let error = serde_json::from_str::<EtcdConfig>(r#"{"endpoints":[],"x":1}"#).unwrap_err();
        assert!(error.to_string().contains('x'));
    }
}
