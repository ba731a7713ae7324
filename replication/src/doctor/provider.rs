//! Hosted services, which have settings in places of their own.

/// Who runs the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Provider {
    /// Somebody who can edit `postgresql.conf`, as far as is known.
    Own,
    AmazonRds,
    GoogleCloudSql,
    AzureDatabase,
    Supabase,
    Neon,
}

/// Roles by which services are told, and the statement's column that says which are there.
pub(super) const ROLES: [(&str, Provider); 5] = [
    ("rds_superuser", Provider::AmazonRds),
    ("cloudsqlsuperuser", Provider::GoogleCloudSql),
    ("azure_pg_admin", Provider::AzureDatabase),
    ("supabase_admin", Provider::Supabase),
    ("neon_superuser", Provider::Neon),
];

impl Provider {
    /// The service that has one of these roles.
    pub(super) fn of(roles: &[String]) -> Self {
        let known = ROLES
            .iter()
            .find(|(role, _)| roles.iter().any(|there| there == role));
        known.map_or(Self::Own, |(_, provider)| *provider)
    }

    /// The service's name.
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Self::Own => None,
            Self::AmazonRds => Some("Amazon RDS"),
            Self::GoogleCloudSql => Some("Google Cloud SQL"),
            Self::AzureDatabase => Some("Azure Database"),
            Self::Supabase => Some("Supabase"),
            Self::Neon => Some("Neon"),
        }
    }

    /// How logical decoding is turned on, where that is not done by ALTER SYSTEM.
    pub(super) fn logical_decoding(self) -> Option<&'static str> {
        match self {
            Self::Own | Self::Supabase => None,
            Self::AmazonRds => Some(
                "set rds.logical_replication = 1 in the parameter group and reboot the instance",
            ),
            Self::GoogleCloudSql => {
                Some("set the flag cloudsql.logical_decoding = on and let the instance restart")
            }
            Self::AzureDatabase => {
                Some("set wal_level = LOGICAL in the server parameters and restart the server")
            }
            Self::Neon => Some("turn on logical replication in the settings of the project"),
        }
    }

    /// How a role, whose name is quoted, gets the right to replicate.
    pub(super) fn let_replicate(self, role: &str) -> String {
        match self {
            Self::AmazonRds => format!("GRANT rds_replication TO {role}"),
            _ => format!("ALTER ROLE {role} REPLICATION"),
        }
    }

    /// How a setting of the server is changed.
    pub(super) fn set(self, setting: &str, value: &str, restart: bool) -> String {
        let after = match (self, restart) {
            (_, true) => ", and restart PostgreSQL",
            (Self::Own, false) => "; SELECT pg_reload_conf()",
            (_, false) => "",
        };
        match self {
            Self::Own => format!("ALTER SYSTEM SET {setting} = {value}{after}"),
            Self::AmazonRds => format!("set {setting} = {value} in the parameter group{after}"),
            Self::GoogleCloudSql => format!("set the flag {setting} = {value}{after}"),
            Self::AzureDatabase => {
                format!("set {setting} = {value} in the server parameters{after}")
            }
            Self::Supabase | Self::Neon => {
                format!("set {setting} = {value} in the settings of the project{after}")
            }
        }
    }

    /// Whether a role with this membership may do what else only a superuser may.
    pub(super) fn admin_role(self) -> Option<&'static str> {
        ROLES
            .iter()
            .find(|(_, provider)| *provider == self)
            .map(|(role, _)| *role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_told_by_their_roles() {
        assert_eq!(Provider::of(&["postgres".into()]), Provider::Own);
        let rds = Provider::of(&["postgres".into(), "rds_superuser".into()]);
        assert_eq!(rds, Provider::AmazonRds);
        assert_eq!(rds.admin_role(), Some("rds_superuser"));
        assert!(
            rds.set("max_wal_senders", "20", true)
                .contains("parameter group")
        );
        let own = Provider::Own.set("wal_sender_timeout", "'60s'", false);
        assert_eq!(
            own,
            "ALTER SYSTEM SET wal_sender_timeout = '60s'; SELECT pg_reload_conf()"
        );
    }
}
