//! TLS to PostgreSQL, by rustls.

mod certificate;
mod connector;
mod verifier;

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

pub(crate) use certificate::end_point_hash;
pub(crate) use connector::TlsConnector;

use self::verifier::{AnyCertificate, TrustedCertificate};
use crate::{Address, Error, Result, TlsMode};

/// The client configuration for an address; `None` where TLS is not to be used.
pub(crate) fn client_config(address: &Address) -> Result<Option<Arc<ClientConfig>>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Config(format!("TLS cannot be set up: {error}")))?;
    let roots = address.root_certificates.as_deref();
    let config = match (address.tls, roots) {
        (TlsMode::Disable, _) => return Ok(None),
        (TlsMode::Prefer | TlsMode::NoVerify, _) | (TlsMode::Require, None) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate::new(provider)))
            .with_no_client_auth(),
        (mode, roots) => {
            let (store, trusted) = trusted(roots)?;
            let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider)
                .build()
                .map_err(|error| Error::Config(format!("sslrootcert cannot be used: {error}")))?;
            let check_name = mode == TlsMode::VerifyFull;
            let verifier = TrustedCertificate::new(inner, trusted, check_name);
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
                .with_no_client_auth()
        }
    };
    Ok(Some(Arc::new(config)))
}

/// The authorities of a PEM file, which are trusted as they are too, or those of the operating
/// system.
fn trusted(file: Option<&Path>) -> Result<(RootCertStore, Vec<CertificateDer<'static>>)> {
    let mut store = RootCertStore::empty();
    let Some(file) = file else {
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok((store, Vec::new()));
    };
    let unusable =
        |why: &dyn std::fmt::Display| Error::Config(format!("sslrootcert {file:?}: {why}"));
    let mut trusted = Vec::new();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| unusable(&error))? {
        let certificate = certificate.map_err(|error| unusable(&error))?;
        store
            .add(certificate.clone())
            .map_err(|error| unusable(&error))?;
        trusted.push(certificate);
    }
    if store.is_empty() {
        return Err(unusable(&"there is no certificate in it"));
    }
    Ok((store, trusted))
}
