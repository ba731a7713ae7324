//! Where PostgreSQL is and how to be let in: `postgres://` addresses.

use std::path::PathBuf;
use std::time::Duration;

use crate::{Error, Result};

const DEFAULT_PORT: u16 = 5432;
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A parsed `postgres://` or `postgresql://` address.
///
/// # Example
/// ```
/// use kelvin_replication::Address;
///
/// let address = Address::parse("postgres://me:s%40fe@db.example:6543/shop?sslmode=require")?;
/// assert_eq!(address.database, "shop");
/// assert_eq!(address.password.as_deref(), Some("s@fe"));
/// # Ok::<(), kelvin_replication::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// Where the server listens.
    pub host: Host,
    /// Role to log in as.
    pub user: String,
    /// Its password, if one was given.
    pub password: Option<String>,
    /// Database to open; the role's name where the address has none.
    pub database: String,
    /// Whether and how to use TLS.
    pub tls: TlsMode,
    /// PEM file of the certificate authorities to trust in place of the system's.
    pub root_certificates: Option<PathBuf>,
    /// The `options` start-up parameter, which some hosted services need.
    pub options: Option<String>,
    /// How long a connection may take to come up.
    pub connect_timeout: Duration,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A host name or IP address and a port.
    Tcp(String, u16),
    /// The directory of a Unix socket and the port in the socket's name.
    Unix(PathBuf, u16),
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(name, port) => write!(f, "{name}:{port}"),
            Self::Unix(directory, port) => write!(f, "{}/.s.PGSQL.{port}", directory.display()),
        }
    }
}

/// Whether a connection uses TLS, and what of the server's certificate is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// Where the server offers it; the certificate is not checked.
    Prefer,
    /// Always; the certificate is checked only against `sslrootcert`, if there is one.
    Require,
    /// Always; the certificate is not checked even if there is an `sslrootcert`.
    NoVerify,
    /// Always; the certificate must come from a trusted authority.
    VerifyCa,
    /// Always; the certificate must come from a trusted authority and name the host.
    VerifyFull,
}

impl TlsMode {
    fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "disable" | "false" | "0" => Self::Disable,
            "prefer" | "allow" => Self::Prefer,
            "require" => Self::Require,
            "no-verify" => Self::NoVerify,
            "verify-ca" => Self::VerifyCa,
            "verify-full" | "true" | "1" => Self::VerifyFull,
            other => {
                return Err(invalid(&format!(
                    "sslmode '{other}' is unknown; use disable, prefer, require, no-verify, \
                     verify-ca or verify-full"
                )));
            }
        })
    }
}

/// Shows everything but the password.
impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "postgres://{}@{}/{}",
            self.user, self.host, self.database
        )
    }
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// [`Error::Config`] if it is not one. The text never contains the password.
    pub fn parse(url: &str) -> Result<Self> {
        let rest = url
            .strip_prefix("postgres://")
            .or_else(|| url.strip_prefix("postgresql://"))
            .ok_or_else(|| invalid("it must begin with postgres:// or postgresql://"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, location) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(decode(password)?)),
            None => (login, None),
        };
        let (host, port) = split_port(location)?;
        let mut parts = Parts {
            host: decode(host)?,
            port,
            user: decode(user)?,
            password,
            database: decode(database)?,
            ..Parts::default()
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            parts.set(name, decode(value)?)?;
        }
        Ok(parts.into_address())
    }
}

#[derive(Default)]
struct Parts {
    host: String,
    port: Option<u16>,
    user: String,
    password: Option<String>,
    database: String,
    ssl: Option<TlsMode>,
    sslmode: Option<TlsMode>,
    root_certificates: Option<PathBuf>,
    options: Option<String>,
    connect_timeout: Option<Duration>,
}

impl Parts {
    fn set(&mut self, name: &str, value: String) -> Result<()> {
        match name {
            "host" => self.host = value,
            "port" => self.port = Some(parse_port(&value)?),
            "user" => self.user = value,
            "password" => self.password = Some(value),
            "dbname" => self.database = value,
            "ssl" => self.ssl = Some(TlsMode::parse(&value)?),
            "sslmode" => self.sslmode = Some(TlsMode::parse(&value)?),
            "sslrootcert" if value != "system" => self.root_certificates = Some(value.into()),
            "options" => self.options = Some(value),
            "connect_timeout" => {
                let seconds = value
                    .parse()
                    .map_err(|_| invalid("connect_timeout must be a number of seconds"))?;
                self.connect_timeout = (seconds > 0).then(|| Duration::from_secs(seconds));
            }
            _ => {}
        }
        Ok(())
    }

    fn into_address(self) -> Address {
        let user = if self.user.is_empty() {
            std::env::var("USER").unwrap_or_else(|_| "postgres".into())
        } else {
            self.user
        };
        let port = self.port.unwrap_or(DEFAULT_PORT);
        let host = if self.host.starts_with('/') {
            Host::Unix(self.host.into(), port)
        } else if self.host.is_empty() {
            Host::Tcp("localhost".into(), port)
        } else {
            Host::Tcp(self.host, port)
        };
        Address {
            database: if self.database.is_empty() {
                user.clone()
            } else {
                self.database
            },
            user,
            host,
            password: self.password,
            tls: self.ssl.or(self.sslmode).unwrap_or(TlsMode::Prefer),
            root_certificates: self.root_certificates,
            options: self.options,
            connect_timeout: self.connect_timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT),
        }
    }
}

fn split_port(location: &str) -> Result<(&str, Option<u16>)> {
    if let Some(rest) = location.strip_prefix('[') {
        let (host, rest) = rest
            .split_once(']')
            .ok_or_else(|| invalid("an IPv6 address must end with ]"))?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(parse_port(port)?))),
            None => Ok((host, None)),
        };
    }
    match location.split_once(':') {
        Some((host, port)) if !port.is_empty() => Ok((host, Some(parse_port(port)?))),
        Some((host, _)) => Ok((host, None)),
        None => Ok((location, None)),
    }
}

fn parse_port(text: &str) -> Result<u16> {
    text.parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| invalid(&format!("port '{text}' is not a number from 1 to 65535")))
}

fn decode(text: &str) -> Result<String> {
    let malformed = || invalid("a % must be followed by two hexadecimal digits");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [
            rest.next().ok_or_else(malformed)?,
            rest.next().ok_or_else(malformed)?,
        ];
        let digits = std::str::from_utf8(&digits).map_err(|_| malformed())?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| malformed())?);
    }
    String::from_utf8(bytes).map_err(|_| invalid("it is not UTF-8 after percent-decoding"))
}

fn invalid(why: &str) -> Error {
    Error::Config(format!("the PostgreSQL address is not valid: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_part_is_read_and_percent_decoded() {
        let address = Address::parse(
            "postgresql://a%40b:p%3A%2F@[::1]:99/my%20db?sslmode=verify-ca&sslrootcert=/ca.pem",
        )
        .unwrap();
        assert_eq!(address.user, "a@b");
        assert_eq!(address.password.as_deref(), Some("p:/"));
        assert_eq!(address.host, Host::Tcp("::1".into(), 99));
        assert_eq!(address.database, "my db");
        assert_eq!(address.tls, TlsMode::VerifyCa);
        assert_eq!(address.root_certificates, Some("/ca.pem".into()));
    }

    #[test]
    fn a_host_parameter_with_a_slash_is_a_socket_directory() {
        let address = Address::parse("postgres://me@/db?host=/run/pg&port=5433").unwrap();
        assert_eq!(address.host, Host::Unix("/run/pg".into(), 5433));
        let address = Address::parse("postgres://me@%2Frun%2Fpg/db").unwrap();
        assert_eq!(address.host, Host::Unix("/run/pg".into(), 5432));
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let address = Address::parse("postgres://me@db").unwrap();
        assert_eq!(address.host, Host::Tcp("db".into(), 5432));
        assert_eq!(address.database, "me");
        assert_eq!(address.tls, TlsMode::Prefer);
        assert_eq!(address.password, None);
    }

    #[test]
    fn the_password_is_never_shown() {
        let address = Address::parse("postgres://me:hush@db").unwrap();
        assert!(!format!("{address:?}").contains("hush"));
        let error = Address::parse("postgres://me:hush@db:0/x").unwrap_err();
        assert!(!error.to_string().contains("hush"), "{error}");
    }

    #[test]
    fn what_is_not_an_address_is_a_config_error() {
        for url in [
            "mysql://x",
            "postgres://h:x",
            "postgres://%4",
            "postgres://h?sslmode=maybe",
        ] {
            let error = Address::parse(url).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Config, "{url}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,80}") {
            let _ = Address::parse(&format!("postgres://{text}"));
        }
    }
}
