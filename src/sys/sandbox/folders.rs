//! The files of a gateway that runs, as landlock rules: reading what name lookups, the C library and a reload
//! read, the log in its folder, sockets in those of listeners, nothing else; no signal to other processes, no connection to
//! abstract sockets. A connection that exists is not looked at again.
//!
//! A rule holds for the file itself, not for its name, so what is replaced by renaming needs a rule for its folder.

use std::io;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, LandlockStatus, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

use super::{Needs, Refused};

/// What upsplice was tried with. A later version could also keep us from the Unix sockets of upstreams.
const VERSION: ABI = ABI::V6;

/// Restricts the calling thread; the version of landlock that took part.
pub(super) fn restrict(needs: &Needs) -> Result<u32, Refused> {
    let refused = |source| Refused { call: "landlock_restrict_self", source };
    let status = ruleset(needs).map_err(|error| refused(io::Error::other(error.to_string())))?;
    match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => {
            Err(refused(io::Error::from_raw_os_error(libc::EOPNOTSUPP)))
        }
        (RulesetStatus::NotEnforced, _) => Err(refused(io::Error::from_raw_os_error(libc::ENOSYS))),
        (_, LandlockStatus::Available { effective_abi, .. }) => Ok(effective_abi as u32),
        (_, _) => Ok(0),
    }
}

fn ruleset(needs: &Needs) -> Result<landlock::RestrictionStatus, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::ReadDir;
    let sockets = AccessFs::ReadDir | AccessFs::MakeSock | AccessFs::RemoveFile;
    let made = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(VERSION))?
        .scope(Scope::from_all(VERSION))?
        .create()?
        .add_rules(path_beneath_rules(&needs.read, read))?
        .add_rules(path_beneath_rules(&needs.write, write))?
        .add_rules(path_beneath_rules(&needs.sockets, sockets))?;
    made.restrict_self()
}
