//! Certificates, made while the tests run.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};

/// An authority that issues certificates to servers and clients.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, both as PEM text.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// A day: year, month, day of the month.
pub(crate) type Day = (i32, u8, u8);

/// When the certificates expire that are valid until long after these tests.
pub(crate) const FAR: Day = (2100, 1, 1);

// === impl Authority ===

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate, as PEM text.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// For a server on this machine, until this day.
    pub(crate) fn server(&self, until: Day) -> Pair {
        self.issue(&["127.0.0.1", "localhost"], ExtendedKeyUsagePurpose::ServerAuth, until, &new_key())
    }

    /// For a server of this name.
    pub(crate) fn server_named(&self, name: &str) -> Pair {
        self.issue(&[name], ExtendedKeyUsagePurpose::ServerAuth, FAR, &new_key())
    }

    /// As [`Authority::server`], for a key that is there, as PEM text.
    pub(crate) fn server_with(&self, key: &str) -> Pair {
        let key = KeyPair::from_pem(key).unwrap();
        self.issue(&["127.0.0.1", "localhost"], ExtendedKeyUsagePurpose::ServerAuth, FAR, &key)
    }

    /// For a client of this name.
    pub(crate) fn client(&self, name: &str) -> Pair {
        self.issue(&[name], ExtendedKeyUsagePurpose::ClientAuth, FAR, &new_key())
    }

    /// For a client of this name, expired.
    pub(crate) fn expired_client(&self, name: &str) -> Pair {
        self.issue(&[name], ExtendedKeyUsagePurpose::ClientAuth, (2021, 2, 3), &new_key())
    }

    fn issue(&self, names: &[&str], purpose: ExtendedKeyUsagePurpose, until: Day, key: &KeyPair) -> Pair {
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.extended_key_usages = vec![purpose];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until.0, until.1, until.2);
        let certificate = params.signed_by(key, &self.0).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

// === impl Pair ===

impl Pair {
    /// A certificate for a host that is its own authority, as `openssl req -x509` makes them.
    pub(crate) fn own_authority(host: &str) -> Self {
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = new_key();
        Self { certificate: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
    }
}

fn new_key() -> KeyPair {
    KeyPair::generate().unwrap()
}
