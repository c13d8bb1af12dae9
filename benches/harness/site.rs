//! The running program with the folder that it runs in.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::{Connection, Exporter, Failure, Nginx, folder, spread};

/// The running program, and what it needs meanwhile. Dropping it kills it.
pub(crate) struct Site {
    pub(crate) exporter: Exporter,
    folder: TempDir,
}

// === impl Site ===

impl Site {
    pub(crate) async fn start(configuration: &str) -> Result<Self, Failure> {
        let folder = folder(configuration)?;
        let exporter = Exporter::start(folder.path(), &[]).await?;
        Ok(Self { exporter, folder })
    }

    /// Starts it, and waits until all of its watches were polled once. Nothing else may poll.
    pub(crate) async fn polled_once(nginx: &Nginx, configuration: &str, watches: u32) -> Result<Self, Failure> {
        let before = nginx.requests().await?;
        let site = Self::start(configuration).await?;
        nginx.reaches(before + u64::from(watches)).await?;
        Ok(site)
    }

    /// Has it take another configuration.
    pub(crate) async fn reload(&self, configuration: &str) -> Result<(), Failure> {
        fs::write(self.folder().join("config.yaml"), configuration)?;
        let url = format!("http://{}/-/reload", self.exporter.address);
        reqwest::Client::builder().no_proxy().build()?.post(url).send().await?.error_for_status()?;
        Ok(())
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) async fn connect(&self) -> Result<Connection, Failure> {
        Connection::open(self.exporter.address).await
    }

    /// The median of so many scrapes over one connection, in seconds.
    pub(crate) async fn median_scrape(&self, scrapes: usize) -> Result<f64, Failure> {
        let mut connection = self.connect().await?;
        let mut seconds = Vec::new();
        for _ in 0..scrapes {
            seconds.push(connection.scrape("").await?.seconds);
        }
        seconds.sort_unstable_by(f64::total_cmp);
        Ok(spread(&seconds).1)
    }
}
