//! Cookies: how a client names the state it holds.

use std::fmt;
use std::str::FromStr;

use crate::Version;
use crate::lexi::{from_lexi, to_lexi};

/// The state of a client group that a client holds: the answer of the queries it had at config
/// number `config`, in the database at `version` of lineage `epoch`.
///
/// As text it is `k<epoch>.<version>:<config>`, each number in the form of [`to_lexi`], so that the
/// order of the strings, which is all a client looks at, is the order of the cookies. The leading
/// `k` tells our cookies from those of zero-cache, which are `<version>` or `<version>:<config>`. A
/// zero-cache in turn reads one of ours as a version beyond all of its own, by which the client
/// starts afresh; any other form it would answer with an internal error, again and again.
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
            "k{epoch}.{}:{}",
            to_lexi(self.version),
            to_lexi(self.config)
        )
    }
}

impl FromStr for Cookie {
    type Err = CookieError;

    fn from_str(text: &str) -> Result<Self, CookieError> {
        let error = || CookieError(text.chars().take(64).collect());
        let parts = text.strip_prefix('k').and_then(|text| {
            let (state, config) = text.split_once(':')?;
            let (epoch, version) = state.split_once('.')?;
            Some((from_lexi(epoch)?, from_lexi(version)?, from_lexi(config)?))
        });
        let (epoch, version, config) = parts.ok_or_else(error)?;
        Ok(Self {
            epoch: u32::try_from(epoch).map_err(|_| error())?,
            version,
            config,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cookies_of_zero_cache_are_not_ours() {
        let others = ["00", "00:01", "6abc.01:02", ""];
        let torn = [
            "k00.00",
            "k00.00.00",
            "k00:00",
            "k00.00:00:00",
            "k00.00.00:00",
        ];
        for text in others.iter().chain(&torn) {
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
