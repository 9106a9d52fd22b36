//! The options by which every program reaches etcd.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use discovery_core::{Instance, Invalid, Registration, Source};
use discovery_etcd::format::{FormatName, Unencodable};
use discovery_etcd::{EtcdConfig, EtcdRegistry, OnConflict, RegisterOptions};

use crate::fault::Fault;
use crate::options::{ETCD_VARIABLE, etcd_url};

/// Where etcd is and how to speak to it.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "etcd")]
pub struct EtcdOptions {
    /// etcd's addresses, with commas between them; also from DISCOVERY_ETCD
    #[arg(long, value_name = "URL", value_delimiter = ',', value_parser = etcd_url)]
    pub etcd: Vec<String>,

    /// How instances stand in etcd: native, or heartbeat (key heartbeat|SERVICE|URL, value the URL)
    #[arg(long, value_name = "NAME", default_value = "native", value_parser = format)]
    pub format: FormatName,

    /// The key below which the services stand in the native format [default: /services]
    #[arg(long, value_name = "KEY")]
    pub prefix: Option<String>,

    /// The user to be at etcd; needs --password-file
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,

    /// The file with that user's password
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,

    /// The certificates (PEM) by which etcd's is checked
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,

    /// Our own certificate (PEM), where etcd asks for one; needs --key
    #[arg(long, value_name = "FILE")]
    pub cert: Option<PathBuf>,

    /// The key (PEM) of that certificate
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,

    /// A TOML file with these options by the same names; the command line wins
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl EtcdOptions {
    /// The registry they name, with what the program has to `add` to the settings. Reads the files and
    /// does not reach for etcd yet. Must be called within a runtime.
    ///
    /// # Errors
    /// [`Fault::Usage`] names the option or file that is missing or wrong.
    pub fn registry(&self, add: impl FnOnce(EtcdConfig) -> EtcdConfig) -> Result<Registry, Fault> {
        let registry = EtcdRegistry::new(add(self.config()?))
            .map_err(|error| Fault::usage(by_option(&error.to_string())))?;
        if let Some(prefix) = self.prefix.as_ref().filter(|_| !self.format.has_prefix()) {
            let format = self.format;
            tracing::warn!(%format, prefix, "--prefix has no effect: this format has none");
        }
        Ok(Registry(registry))
    }

    fn config(&self) -> Result<EtcdConfig, Fault> {
        if self.etcd.is_empty() {
            return Err(Fault::usage(format!(
                "--etcd is missing; it can also be given by {ETCD_VARIABLE} or in the file of --config"
            )));
        }
        let mut config = EtcdConfig::new(&self.etcd).format(self.format);
        if let Some(prefix) = &self.prefix {
            config = config.prefix(prefix);
        }
        match (&self.user, &self.password_file) {
            (Some(user), Some(file)) => config = config.credentials(user, password(file)?),
            (Some(_), None) => return Err(missing("--user", "--password-file")),
            (None, Some(_)) => return Err(missing("--password-file", "--user")),
            (None, None) => {}
        }
        if let Some(ca) = &self.ca {
            readable("--ca", ca)?;
            config = config.ca_file(ca);
        }
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                readable("--cert", cert)?;
                readable("--key", key)?;
                config = config.client_certificate_files(cert, key);
            }
            (Some(_), None) => return Err(missing("--cert", "--key")),
            (None, Some(_)) => return Err(missing("--key", "--cert")),
            (None, None) => {}
        }
        Ok(config)
    }
}

/// The services in etcd.
pub struct Registry(EtcdRegistry);

impl Registry {
    /// As a source.
    pub fn source(&self) -> Arc<dyn Source> {
        Arc::new(self.0.clone())
    }

    /// As a registrar.
    pub fn registrar(&self) -> EtcdRegistry {
        self.0.clone()
    }

    /// Whether the format can hold the instance at all.
    ///
    /// # Errors
    /// [`Unencodable`] names what it cannot hold.
    pub fn check(&self, instance: &Instance) -> Result<(), Unencodable> {
        self.0.format().encode(instance).map(drop)
    }

    /// Registers. `wait` says what to do while somebody else holds the id; `replace_same_address`
    /// that a holder with the instance's own address is its dead predecessor.
    pub fn register(
        &self,
        instance: Instance,
        wait: bool,
        replace_same_address: bool,
    ) -> Registration {
        let on_conflict = if wait { OnConflict::Wait } else { OnConflict::Fail };
        let options = RegisterOptions::default()
            .on_conflict(on_conflict)
            .replace_same_address(replace_same_address);
        self.0.register_with(instance, options)
    }
}

fn format(text: &str) -> Result<FormatName, String> {
    text.parse().map_err(|error: Invalid| error.reason().to_owned())
}

/// The settings of the registry by the names that they have here.
fn by_option(error: &str) -> String {
    if let Some(rest) = error.strip_prefix("etcd endpoint ") {
        return format!("--etcd (or {ETCD_VARIABLE}) {rest}");
    }
    let ours = ["format ", "prefix ", "ttl ", "user ", "ca ", "cert ", "key "];
    let ours = ours.iter().any(|setting| error.starts_with(setting));
    if ours { format!("--{error}") } else { error.to_owned() }
}

fn missing(given: &str, needed: &str) -> Fault {
    Fault::usage(format!("{given} needs {needed}, which is missing"))
}

/// So that a file that is not there is named by the option it was given with.
fn readable(option: &str, file: &Path) -> Result<(), Fault> {
    match std::fs::read(file) {
        Ok(_) => Ok(()),
        Err(error) => Err(Fault::option(option, file.display(), error)),
    }
}

/// The password without the line break that editors put at its end.
fn password(file: &Path) -> Result<String, Fault> {
    let fault = |reason: &str| Fault::option("--password-file", file.display(), reason);
    let text = std::fs::read_to_string(file).map_err(|error| fault(&error.to_string()))?;
    let password = text.trim_end_matches(['\n', '\r']);
    if password.is_empty() {
        return Err(fault("the file is empty"));
    }
    Ok(password.to_owned())
}
