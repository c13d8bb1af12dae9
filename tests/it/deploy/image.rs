//! The image: built as it is shipped, from a program that was built on this machine, and run.

use std::collections::BTreeSet;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::{file, printed, static_program};
use crate::harness::{Authority, Exporter, KEY, TlsUpstream, tool};

const MIB: u64 = 1024 * 1024;

/// The root certificates of this machine, which the image takes along.
const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The commit that the test says the image is of.
const REVISION: &str = "0123456789ab";

/// An image, with all that it was built from and into.
struct Image {
    folder: PathBuf,
}

impl Image {
    /// The image that the tests share. Each may be a process of its own, so the first builds it, and the
    /// others wait for that.
    fn shared() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("image");
        let inputs = [static_program(), file("deploy/Dockerfile"), file("deploy/rootfs"), ROOTS.into()];
        let mut hasher = DefaultHasher::new();
        for input in inputs {
            std::fs::read(input).unwrap().hash(&mut hasher);
        }
        let inputs = hasher.finish().to_string();
        let lock = File::create(folder.with_extension("lock")).unwrap();
        lock.lock().unwrap();
        let made_from = folder.with_extension("made-from");
        if std::fs::read_to_string(&made_from).ok().as_ref() != Some(&inputs) {
            std::fs::write(&made_from, "").unwrap();
            if folder.exists() {
                std::fs::remove_dir_all(&folder).unwrap();
            }
            Self::build(&folder);
            std::fs::write(made_from, inputs).unwrap();
        }
        Self { folder }
    }

    /// Builds the last stage of the Dockerfile. The one before would pull a compiler.
    fn build(folder: &Path) -> Self {
        let image = Self { folder: folder.to_owned() };
        printed(Command::new(file("deploy/rootfs")).arg(static_program()).arg(image.path("build/rootfs")));
        let context = format!("build={}", image.path("build").display());
        let revision = format!("REVISION={REVISION}");
        let mut build = image.buildah();
        build.args(["build", "--isolation", "chroot", "--timestamp", "0", "--tag", "cekura-exporter"]);
        build.args(["--build-context", &context, "--build-arg", &revision, "--file"]);
        printed(build.arg(file("deploy/Dockerfile")).arg(file("")));
        printed(
            image.buildah().args(["push", "cekura-exporter"]).arg(format!("oci:{}:test", image.path("oci").display())),
        );
        image
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn buildah(&self) -> Command {
        let mut command = Command::new(tool("buildah"));
        command.args(["--storage-driver", "vfs", "--root"]).arg(self.path("storage"));
        command.arg("--runroot").arg(self.path("running"));
        command
    }

    /// The text of a blob.
    fn blob(&self, digest: &Value) -> Value {
        let digest = digest.as_str().unwrap().replace(':', "/");
        serde_json::from_slice(&std::fs::read(self.path("oci/blobs").join(digest)).unwrap()).unwrap()
    }

    /// The digest of its manifest: equal images have equal ones.
    fn digest(&self) -> Value {
        let index: Value = serde_json::from_slice(&std::fs::read(self.path("oci/index.json")).unwrap()).unwrap();
        index["manifests"][0]["digest"].clone()
    }

    fn manifest(&self) -> Value {
        self.blob(&self.digest())
    }

    /// What it says of how it is to be run.
    fn config(&self) -> Value {
        self.blob(&self.manifest()["config"]["digest"])["config"].clone()
    }

    /// Unpacks it into this folder, and says where its root is.
    fn unpack(&self, folder: &TempDir) -> PathBuf {
        let image = format!("{}:test", self.path("oci").display());
        let bundle = folder.path().join("bundle");
        printed(Command::new(tool("umoci")).args(["unpack", "--image", &image]).arg(&bundle));
        bundle.join("rootfs")
    }
}

/// All files and folders below this one, without it, with whose they are.
fn below(folder: &Path) -> BTreeSet<String> {
    let found = printed(Command::new("find").arg(folder).args(["-mindepth", "1", "-printf", "%P %M %U:%G\n"]));
    found.lines().map(str::to_owned).collect()
}

#[test]
fn the_image_has_the_program_roots_and_user_and_nothing_else_and_is_small() {
    let (image, folder) = (Image::shared(), tempfile::tempdir().unwrap());
    let root = image.unpack(&folder);
    let expected = [
        "etc drwxr-xr-x 0:0",
        "etc/group -rw-r--r-- 0:0",
        "etc/passwd -rw-r--r-- 0:0",
        "etc/ssl drwxr-xr-x 0:0",
        "etc/ssl/certs drwxr-xr-x 0:0",
        "etc/ssl/certs/ca-certificates.crt -rw-r--r-- 0:0",
        "toggles drwxr-xr-x 65532:65532",
        "usr drwxr-xr-x 0:0",
        "usr/bin drwxr-xr-x 0:0",
        "usr/bin/cekura-exporter -rwxr-xr-x 0:0",
        "var drwxr-xr-x 0:0",
        "var/lib drwxr-xr-x 0:0",
        "var/lib/cekura-exporter drwxr-xr-x 65532:65532",
    ];
    assert_eq!(below(&root), expected.map(str::to_owned).into());
    let unpacked: u64 = below(&root)
        .iter()
        .map(|line| std::fs::metadata(root.join(line.split(' ').next().unwrap())).unwrap())
        .filter(std::fs::Metadata::is_file)
        .map(|metadata| metadata.len())
        .sum();
    let compressed: u64 =
        super::pods::each(&image.manifest()["layers"]).map(|layer| layer["size"].as_u64().unwrap()).sum();
    println!("the image has {unpacked} bytes, {compressed} compressed");
    assert!(compressed > MIB && unpacked < 10 * MIB, "{unpacked} bytes, {compressed} compressed");
}

#[test]
fn the_program_of_the_image_is_static_and_can_be_put_anywhere_in_memory() {
    let headers =
        printed(Command::new(tool("readelf")).args(["--file-header", "--program-headers"]).arg(static_program()));
    assert!(headers.contains("LOAD") && headers.contains("DYN (Position-Independent Executable file)"), "{headers}");
    assert!(!headers.contains("INTERP"), "it asks for a loader:\n{headers}");
}

#[test]
fn the_image_says_what_it_is_and_how_to_run_it() {
    let config = Image::shared().config();
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["ExposedPorts"], json!({"10058/tcp": {}}));
    assert_eq!(config["Entrypoint"], json!(["/usr/bin/cekura-exporter"]));
    assert_eq!(config["Cmd"], json!(["--config.file=/etc/cekura-exporter/config.yaml"]));
    let label =
        |name: &str| config["Labels"][format!("org.opencontainers.image.{name}")].as_str().unwrap_or("").to_owned();
    assert_eq!(label("title"), env!("CARGO_PKG_NAME"));
    assert_eq!(label("description"), env!("CARGO_PKG_DESCRIPTION"));
    assert_eq!(label("licenses"), env!("CARGO_PKG_LICENSE"));
    assert_eq!(label("version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(label("revision"), REVISION);
}

#[test]
fn what_is_the_same_gives_the_same_image() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [image, again] = folders.each_ref().map(|folder| Image::build(folder.path()));
    assert_eq!(image.digest(), again.digest());
    // Not every tool that builds images sets the times of files.
    let times = printed(Command::new("find").arg(image.path("build/rootfs")).args(["-printf", "%T@\n"]));
    assert_eq!(times.lines().collect::<BTreeSet<_>>(), ["0.0000000000"].into());
}

#[test]
fn hadolint_has_nothing_to_say_of_the_dockerfile() {
    printed(Command::new(tool("hadolint")).arg(file("deploy/Dockerfile")));
}

#[test]
fn what_is_sent_to_the_build_is_all_that_it_needs_and_little_else() {
    let folder = tempfile::tempdir().unwrap();
    let image = Image { folder: folder.path().to_owned() };
    std::fs::write(image.path("Dockerfile"), "FROM scratch\nCOPY . /\n").unwrap();
    let mut build = image.buildah();
    build.args(["build", "--isolation", "chroot", "--tag", "context", "--file"]).arg(image.path("Dockerfile"));
    printed(build.arg(file("")));
    printed(image.buildah().args(["push", "context"]).arg(format!("oci:{}:test", image.path("oci").display())));
    let root = image.unpack(&folder);
    let mut metadata = Command::new(env!("CARGO"));
    metadata.args(["metadata", "--locked", "--offline", "--no-deps", "--format-version", "1", "--manifest-path"]);
    printed(metadata.arg(root.join("Cargo.toml")));
    for needed in ["build.rs", "deploy/rootfs", "docs/runbooks.md", "src/main.rs", "src/http/page/assets/page.js"] {
        assert!(root.join(needed).is_file(), "{needed}");
    }
    for left_out in [".git", "target", "docs/performance.md", "tests/it", "README.md"] {
        assert!(!root.join(left_out).exists(), "{left_out}");
    }
}

/// A name server of one name, at an address of loopback where no other is.
struct NameServer {
    address: IpAddr,
    serving: JoinHandle<()>,
}

impl NameServer {
    async fn start(name: &'static str) -> Self {
        let (address, socket) = loop {
            let address = Ipv4Addr::new(127, fastrand::u8(1..), fastrand::u8(..), fastrand::u8(1..255));
            if let Ok(socket) = UdpSocket::bind((address, 53)).await {
                break (address, socket);
            }
        };
        Self { address: address.into(), serving: tokio::spawn(serve_names(socket, name)) }
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve_names(socket: UdpSocket, name: &str) {
    let labels = name.split('.').flat_map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat());
    let known: Vec<u8> = labels.chain([0]).collect();
    let mut query = [0; 512];
    loop {
        let (length, from) = socket.recv_from(&mut query).await.unwrap();
        // Name, type and class of the question; what follows says what else the client knows.
        let Some(asked) = query[..length].get(12..12 + known.len()) else { continue };
        let question = &query[12..(12 + known.len() + 4).min(length)];
        let wants_v4 = question.ends_with(&[0, 1, 0, 1]);
        let (code, answers) = if asked == known { (0, u8::from(wants_v4)) } else { (3, 0) };
        let mut answer = [&query[..2], &[0x81, 0x80 | code, 0, 1, 0, answers, 0, 0, 0, 0], question].concat();
        if answers > 0 {
            // The name as asked, an IPv4 address, for a minute.
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
        }
        socket.send_to(&answer, from).await.unwrap();
    }
}

#[tokio::test]
async fn the_image_runs_as_nobody_on_a_root_that_cannot_be_written_and_finds_and_trusts_hosts() {
    let (image, folder) = (Image::shared(), tempfile::tempdir().unwrap());
    let root = image.unpack(&folder);
    let config = image.config();
    let words =
        |list: &Value| super::pods::each(list).map(|word| word.as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let command = [words(&config["Entrypoint"]), words(&config["Cmd"])].concat();

    let authority = Authority::new("upstreams");
    let by_hosts = TlsUpstream::start(&authority, "by-hosts.example").await;
    let by_dns = TlsUpstream::start(&authority, "by-dns.example").await;
    let foreign = TlsUpstream::start(&Authority::new("foreign"), "by-hosts.example").await;
    let names = NameServer::start("by-dns.example").await;

    let key = "api_key_file: /run/secrets/cekura/api-key";
    let ours = "ca_file: /etc/cekura-exporter/ca.pem";
    let text = format!(
        "apis:\n  hosts: {{base_url: {}, {key}, {ours}}}\n  dns: {{base_url: {}, {key}, {ours}}}\n  \
         foreign: {{base_url: {}, {key}}}\n  nowhere: {{base_url: 'https://nowhere.example', {key}}}\n\
         watches:\n  - {{name: hosts, agent_id: 1, progress_id: p, api: hosts}}\n  \
         - {{name: dns, agent_id: 1, progress_id: p, api: dns}}\n  \
         - {{name: foreign, agent_id: 1, progress_id: p, api: foreign}}\n  \
         - {{name: nowhere, agent_id: 1, progress_id: p, api: nowhere}}\n\
         state_file: /var/lib/cekura-exporter/state\n",
        by_hosts.url_at("by-hosts.example"),
        by_dns.url_at("by-dns.example"),
        foreign.url_at("by-hosts.example"),
    );
    let script = file("tests/it/deploy/contain.sh");
    let (unshare, script, root) = (tool("unshare"), script.to_str().unwrap(), root.to_str().unwrap());
    let mut through = vec![unshare.to_str().unwrap(), "--mount", script, root];
    through.extend(command.iter().map(String::as_str));
    through.push("--");
    let exporter = Exporter::with(text)
        .file("mounts/etc/hosts", "127.0.0.1 localhost by-hosts.example\n")
        .file("mounts/etc/resolv.conf", &format!("nameserver {}\noptions timeout:1 attempts:1\n", names.address))
        .file("mounts/etc/cekura-exporter/ca.pem", &authority.pem())
        .file("mounts/run/secrets/cekura/api-key", KEY)
        .through(&through)
        .start()
        .await;
    let e = exporter
        .scrape_until("each was polled", |e| {
            ["hosts", "dns", "foreign", "nowhere"]
                .iter()
                .all(|toggle| e.value("cekura_toggle_up", &[("toggle", toggle)]).is_some())
        })
        .await;
    for toggle in ["hosts", "dns"] {
        assert_eq!(e.status(toggle).as_deref(), Some("completed"), "{}", e.text);
    }
    assert_eq!((by_hosts.answered(), by_dns.answered(), foreign.answered()), (1, 1, 0));
    for (toggle, reason) in [("foreign", "tls"), ("nowhere", "dns")] {
        let labels = [("toggle", toggle), ("reason", reason)];
        assert_eq!(e.value("cekura_toggle_poll_error", &labels), Some(1.0), "{}", e.text);
    }
    let warned = exporter.logs().iter().any(|line| line["message"].as_str().unwrap().contains("root certificates"));
    assert!(!warned, "it found no roots: {:?}", exporter.logs());

    let ids = exporter.proc("status").lines().filter(|line| line.starts_with("Uid:")).collect::<String>();
    assert_eq!(ids.split_whitespace().skip(1).collect::<BTreeSet<_>>(), ["65532"].into(), "{ids}");
    let mounts = exporter.proc("mountinfo");
    let of_root = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some("/")).unwrap();
    assert!(of_root.split(' ').nth(5).unwrap().split(',').any(|option| option == "ro"), "{mounts}");
    assert!(exporter.folder().join("mounts/var/lib/cekura-exporter/state").is_file());

    exporter.stop().await;
}
