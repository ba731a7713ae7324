//! Cookies: how a client names the state it holds.

use std::fmt;
use std::str::FromStr;

use crate::Version;
use crate::lexi::{from_lexi, to_lexi};

/// The state of a client group that a client holds: the answer of the queries it had at config
/// number `config`, in the database at `version` of lineage `epoch`.
///
/// As text it is `k<epoch>.<version>.<config>`, each number in the form of [`to_lexi`], so that the
/// order of the strings, which is all a client looks at, is the order of the cookies. The leading
/// `k` tells our cookies from those of other servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cookie {
    /// Lineage of the upstream; a database whose LSNs went back starts a new one.
    pub epoch: u32,
    /// Commit LSN the rows stand at.
    pub version: Version,
    /// Config number of the group. It only ever grows.
    pub config: u64,
}

/// A string that is not a cookie of this server.
#[derive(Debug, thiserror::Error)]
#[error("not a cookie of this server: {0:?}")]
pub struct CookieError(String);

impl fmt::Display for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let epoch = to_lexi(u64::from(self.epoch));
        write!(
            f,
            "k{epoch}.{}.{}",
            to_lexi(self.version),
            to_lexi(self.config)
        )
    }
}

impl FromStr for Cookie {
    type Err = CookieError;

    fn from_str(text: &str) -> Result<Self, CookieError> {
        let error = || CookieError(text.chars().take(64).collect());
        let mut parts = text.strip_prefix('k').ok_or_else(error)?.split('.');
        let mut next = || parts.next().and_then(from_lexi).ok_or_else(error);
        let (epoch, version, config) = (next()?, next()?, next()?);
        let epoch = u32::try_from(epoch).map_err(|_| error())?;
        match parts.next() {
            None => Ok(Self {
                epoch,
                version,
                config,
            }),
            Some(_) => Err(error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cookies_of_zero_cache_are_not_ours() {
        for text in ["00", "00:01", "6abc.01:02", "", "k00.00", "k00.00.00.00"] {
            assert!(text.parse::<Cookie>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn string_order_is_cookie_order(a: (u32, u64, u64), b: (u32, u64, u64)) {
            let cookie = |(epoch, version, config)| Cookie { epoch, version, config };
            let (a, b) = (cookie(a), cookie(b));
            prop_assert_eq!(a.to_string().cmp(&b.to_string()), a.cmp(&b));
            prop_assert_eq!(a.to_string().parse::<Cookie>().unwrap(), a);
        }
    }
}
