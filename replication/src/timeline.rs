//! Whether a server on another timeline has all that the replica has.
//!
//! A standby that takes over, and a server that is restored to a moment, begin a new timeline: the
//! old one ends for them somewhere, and may have gone on elsewhere. A replica that was further than
//! that holds transactions the server has never heard of, even if its slot is there.

use crate::wire::{ReplicationConnection, SystemIdentity};
use crate::{Error, ErrorKind, Lsn, Result};

/// Detail of a replica's identity: the timeline of the server it follows.
pub(crate) const TIMELINE: &str = "timeline";

/// Checks that a server has everything up to the transaction whose commit record is at `reached`,
/// which came from a server on the timeline `known`.
///
/// # Errors
/// [`Error::Resync`] where it has not; else what the connection brings up.
pub(crate) async fn check(
    connection: &mut ReplicationConnection,
    system: &SystemIdentity,
    known: u32,
    reached: u64,
) -> Result<()> {
    if known == system.timeline {
        return Ok(());
    }
    let history = match connection.timeline_history(system.timeline).await {
        Ok(history) => history,
        Err(error @ Error::Server(_)) if error.kind() == ErrorKind::Retry => {
            // Such as where the file is gone, which is no reason to do without the server.
            tracing::warn!(
                timeline = system.timeline,
                %error,
                "cannot tell whether the server has all that the replica has"
            );
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    match left(&history, known) {
        Some(end) if reached < end.0 => Ok(()),
        _ => Err(Error::Resync(
            "PostgreSQL was restored, or failed over to a server that lacks transactions".into(),
        )),
    }
}

/// Where a history leaves a timeline, if it is part of it.
fn left(history: &str, timeline: u32) -> Option<Lsn> {
    let mut lines = history.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        Some((fields.next()?.parse::<u32>().ok()?, fields.next()?))
    });
    let (_, end) = lines.find(|(of, _)| *of == timeline)?;
    end.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_says_where_it_left_each_timeline() {
        let history = "1\t0/3000110\tno recovery target specified\n\n\
                       # a comment\n3\t1/A\tbefore 2000-01-01 00:00:00+00\n";
        assert_eq!(left(history, 1), Some(Lsn(0x300_0110)));
        assert_eq!(left(history, 3), Some(Lsn(0x1_0000_000A)));
        assert_eq!(left(history, 2), None);
        assert_eq!(left("nonsense\n1\n1 x", 1), None);
    }
}
