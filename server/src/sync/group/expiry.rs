//! A group's own timers: expiring queries, old cookies, credentials to check again.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{Attachment, Group};
use crate::sync::poke::PokeBody;
use crate::sync::session::Session;
use crate::sync::transform::Which;

/// Longest sleep between two looks at the clock.
const LONGEST_ALARM: Duration = Duration::from_secs(600);
/// How often the TTL clock and the time of the last activity are written down.
const SAVE_INTERVAL: Duration = Duration::from_secs(60);
/// Slack after a query's time is over, so that several go at once.
const EXPIRY_SLACK: Duration = Duration::from_millis(50);

impl Group {
    /// How long until something is due.
    pub(super) fn alarm(&self) -> Duration {
        if let Some(since) = self.empty_since {
            return (super::LINGER + Duration::from_millis(10)).saturating_sub(since.elapsed());
        }
        if self.attachment != Attachment::Attached {
            return LONGEST_ALARM;
        }
        let Some(record) = &self.record else {
            return LONGEST_ALARM;
        };
        let elapsed = self
            .clock_since
            .map_or(0, |since| since.elapsed().as_millis());
        let now = u128::from(record.ttl_clock_ms) + elapsed;
        let due = record.next_expiry_ms().map_or(LONGEST_ALARM, |at| {
            let left = u128::from(at).saturating_sub(now);
            Duration::from_millis(u64::try_from(left).unwrap_or(u64::MAX)) + EXPIRY_SLACK
        });
        due.clamp(EXPIRY_SLACK, LONGEST_ALARM)
    }

    /// Moves the TTL clock and the time of the last activity, which run while somebody is
    /// connected.
    pub(super) fn advance_clock(&mut self) {
        let Some(since) = &mut self.clock_since else {
            return;
        };
        let elapsed = since.elapsed();
        *since = Instant::now();
        let Some(record) = &mut self.record else {
            return;
        };
        record.ttl_clock_ms += u64::try_from(elapsed.as_millis()).unwrap_or(0);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        record.last_active_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    }

    /// Does what is due.
    pub(super) async fn look_after(&mut self) {
        self.advance_clock();
        if self.attachment != Attachment::Attached || self.sessions.is_empty() {
            return;
        }
        if let Some(record) = &mut self.record {
            record.trim(self.services.replica.horizon());
        }
        if self.last_saved.elapsed() >= SAVE_INTERVAL && !self.save() {
            return;
        }
        let expired = self
            .record
            .as_ref()
            .is_some_and(|record| !record.expired().is_empty());
        if expired {
            self.reconcile().await;
        }
        self.refresh_cookies().await;
        self.revalidate_if_due();
        self.retransform_if_due();
    }

    /// Members whose rows have not changed for long hold an old version. Before that version leaves
    /// the history, they are moved to a new one, or they could not come back with their cookie.
    async fn refresh_cookies(&mut self) {
        let replica = &self.services.replica;
        let (horizon, newest) = (replica.horizon(), replica.watermark());
        // Not the group's own version: it also moves where there is nothing to tell the members.
        let cookies = self.sessions.values().filter(|session| session.is_member());
        let versions = cookies.filter_map(|session| session.cookie.map(|cookie| cookie.version));
        let oldest = versions.min().unwrap_or(self.version);
        if oldest >= horizon + newest.saturating_sub(horizon) / 2 || self.reading {
            return;
        }
        // The answer carries the engine's version, and with it a poke.
        self.reconcile_now(true).await;
    }

    fn revalidate_if_due(&mut self) {
        let interval = self.services.revalidate_interval;
        if interval.is_zero() || !self.services.app_api.has_query() {
            return;
        }
        let due =
            |session: &&Session| session.validated && session.validated_at.elapsed() >= interval;
        let due: Vec<_> = self
            .sessions
            .values()
            .filter(due)
            .map(|session| session.id)
            .collect();
        for id in due {
            self.validate(id);
        }
    }

    fn retransform_if_due(&mut self) {
        let interval = self.services.retransform_interval;
        if interval.is_zero() || self.last_retransform.elapsed() < interval {
            return;
        }
        self.last_retransform = Instant::now();
        if let Some(session) = self.background_session() {
            self.transform(session, Which::Custom);
        }
    }

    /// The application's permissions changed: client-defined queries are transformed again.
    pub(super) fn permissions_changed(&mut self) {
        if let Some(session) = self.background_session() {
            self.transform(session, Which::Client);
        }
    }

    /// A session whose credentials serve the group's shared work.
    pub(super) fn background_session(&self) -> Option<crate::sync::session::SessionId> {
        let member = |session: &&Session| session.validated && session.is_member();
        self.sessions
            .values()
            .filter(member)
            .map(|session| session.id)
            .next_back()
    }

    /// A poke that only moves the cookie.
    pub(super) fn poke_version(&mut self) {
        self.poke(&PokeBody::default());
    }
}
