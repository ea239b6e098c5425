//! What the process gives up between binding its listeners and starting its workers: root, and all that a
//! running gateway does not do. See [`crate::sys::sandbox`].

use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::StartError;
use crate::config::{Config, Engine, Listen, Runtime};
use crate::sys::credentials::{Identity, is_root};
use crate::sys::sandbox::{self, Needs, Refused, Rings};

/// What name lookups read (glibc and musl), with the modules that the first of them loads; what this process
/// is told about itself and the kernel; certificates.
///
/// /etc as a whole, since resolv.conf, hosts and the like are replaced by renaming, after which a rule for the
/// old file would hide the new one. /proc as a whole, since its folders come and go in memory: what other
/// processes have there to hide is refused to whoever may not trace them, and a confined process may not.
const READ: [&str; 12] = [
    "/etc",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/ca-certificates",
    "/lib",
    "/lib64",
    "/run/nscd",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/proc",
    "/sys/devices/system/cpu",
    "/dev/urandom",
];

/// Becomes the configured user and confines this thread and all that it starts. To be called before any other
/// thread is there, and before the probe, so that it finds what is left. `has_rings`: some were made before.
///
/// # Errors
///
/// The configured user is not to be had. A part of the sandbox that is not to be had is only logged.
pub(super) fn confine(config: &Config, has_rings: bool) -> Result<(), StartError> {
    let gateway = &config.gateway;
    if let Some(user) = &gateway.user {
        let group = gateway.group.as_deref();
        let assumed = Identity::find(user, group).and_then(|identity| identity.assume());
        assumed.map_err(|error| {
            StartError::Unable(format!("cannot become user {user:?}: {error}; start as root"))
        })?;
    }
    if !gateway.sandbox {
        info!("no sandbox, as configured");
        return Ok(());
    }
    // The rules for files bind this thread and those to come. There should be no other, and /proc may be hidden.
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        warn!("{} threads run already, and stay outside of the sandbox", threads - 1);
    }
    if is_root() {
        warn!("runs as root: set [gateway] user, or start as another user");
    }
    let confined = sandbox::confine(&needs(config, has_rings));
    let mut parts = Vec::new();
    let mut absent = Vec::new();
    let mut note = |what: &str, part: Result<String, Refused>| match part {
        Ok(text) => parts.push(text),
        Err(refused) => absent.push(format!("{what} ({refused})")),
    };
    note("a filter of system calls", confined.calls.map(|count| format!("{count} system calls")));
    note("rules for files", confined.files.map(|version| format!("landlock {version}")));
    note(
        "fewer capabilities",
        confined.capabilities.map(|kept| match kept[..] {
            [] => "no capabilities".to_owned(),
            _ => kept.join(", "),
        }),
    );
    info!("sandbox: {}", parts.join(", "));
    if !absent.is_empty() {
        warn!(
            "the sandbox does without {}, which the kernel or a sandbox refuses",
            absent.join(", ")
        );
    }
    Ok(())
}

/// What this configuration does after the start.
fn needs(config: &Config, has_rings: bool) -> Needs {
    let asks = config.routes.iter().any(|route| route.engine == Engine::Uring);
    let rings = match asks || config.gateway.runtime == Runtime::Uring {
        true => Rings::Any,
        false if has_rings => Rings::Made,
        false => Rings::None,
    };
    let folder_of = |file: &Path| match file.parent() {
        None => None,
        Some(folder) if folder.as_os_str().is_empty() => Some(PathBuf::from(".")),
        Some(folder) => Some(folder.to_owned()),
    };
    let mut read: Vec<PathBuf> = READ.map(PathBuf::from).into();
    // A reload reads it again, whatever file has its name by then.
    let file = config.file.as_deref();
    read.extend(file.and_then(folder_of));
    read.extend(file.and_then(|file| folder_of(&file.canonicalize().ok()?)));
    read.extend(std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from));
    // A panic names the places in the source from it.
    read.extend(std::env::current_exe());
    // After a rotation it makes the file anew, under the name or where that leads.
    let log = gateway_log(config);
    let write = log.iter().filter_map(|file| folder_of(file)).collect();
    let of = |address: &Listen| match address {
        Listen::Unix(path) => folder_of(path),
        Listen::Tcp(_) => None,
    };
    let addresses = config.listeners.iter().map(|listener| &listener.address);
    let sockets = addresses.chain(&config.gateway.admin).filter_map(of).collect();
    Needs { rings, read, write, sockets }
}

/// The file of the access log, by its own name and by the one it leads to.
fn gateway_log(config: &Config) -> Vec<PathBuf> {
    let file = config.gateway.log.file.as_deref().filter(|_| config.gateway.access_log);
    let target = file.and_then(|file| file.canonicalize().ok());
    file.map(Path::to_owned).into_iter().chain(target).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs_of(text: &str) -> Needs {
        let mut config = crate::config::from_toml(text, "x").expect("a good configuration");
        config.file = Some("conf/x.toml".into());
        needs(&config, true)
    }

    const ROUTE: &str = "[[route]]\nname = \"a\"\nto = [\"127.0.0.1:9\"]\n";

    #[test]
    fn rings_are_needed_by_those_who_ask_for_them() {
        assert_eq!(needs_of(ROUTE).rings, Rings::Made);
        assert_eq!(needs_of(&format!("{ROUTE}engine = \"uring\"\n")).rings, Rings::Any);
        let runtime = |word| needs_of(&format!("[gateway]\nruntime = \"{word}\"\n{ROUTE}")).rings;
        assert_eq!([runtime("uring"), runtime("auto")], [Rings::Any, Rings::Made]);
        let config = crate::config::from_toml(ROUTE, "x").expect("a good configuration");
        assert_eq!(needs(&config, false).rings, Rings::None);
    }

    #[test]
    fn the_folders_of_the_file_and_of_unix_listeners_are_needed() {
        let listener = |at| format!("[[listener]]\naddress = \"{at}\"\n");
        let needs = needs_of(&(listener("unix:/run/a/b.sock") + &listener("127.0.0.1:0") + ROUTE));
        assert_eq!(needs.sockets, [Path::new("/run/a")]);
        assert!(needs.read.iter().any(|folder| folder == Path::new("conf")), "{needs:?}");
        let needs = needs_of(&(listener("unix:b.sock") + ROUTE));
        assert_eq!(needs.sockets, [Path::new(".")]);
    }

    #[test]
    fn the_folder_of_the_access_log_is_needed_while_it_is_on() {
        let gateway = "[gateway]\naccess_log = \"/nonexistent/logs/access.log\"\n";
        let mut config =
            crate::config::from_toml(&(gateway.to_owned() + ROUTE), "x").expect("good");
        assert_eq!(needs(&config, false).write, [Path::new("/nonexistent/logs")]);
        config.gateway.access_log = false;
        assert!(needs(&config, false).write.is_empty());
    }
}
