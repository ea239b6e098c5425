//! Threads as the scheduler sees them: on which cores one may run, and how long it has run.
//!
//! <https://man7.org/linux/man-pages/man2/sched_setaffinity.2.html>,
//! <https://man7.org/linux/man-pages/man2/clock_gettime.2.html>.

use std::io;
use std::mem;
use std::time::Duration;

use super::cvt;

/// The low bits of the clock of one thread (`CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED`): the kernel's fixed
/// layout, that `pthread_getcpuclockid` builds, too; libc has no name for it.
const THREAD_CLOCK: libc::clockid_t = 0b110;

/// The cores that this thread may run on, in order; empty when the kernel does not say.
pub fn cores() -> Vec<usize> {
    // SAFETY: a cpu_set_t is an array of bits, for which all zeros is a valid value.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes at most the size of `set` into it.
    let answer = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    let count = if answer == 0 { libc::CPU_SETSIZE as usize } else { 0 };
    // SAFETY: `core` is below CPU_SETSIZE, the number of bits in the set.
    (0..count).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect()
}

/// Keeps this thread, and those that it will start, to these cores.
pub fn keep_to(cores: &[usize]) -> io::Result<()> {
    // SAFETY: a cpu_set_t is an array of bits, for which all zeros is a valid value.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    for &core in cores.iter().filter(|&&core| core < libc::CPU_SETSIZE as usize) {
        // SAFETY: `core` is below CPU_SETSIZE, the number of bits in the set.
        unsafe { libc::CPU_SET(core, &mut set) };
    }
    // SAFETY: the kernel reads the size of `set` from it and keeps no pointer.
    cvt(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } as isize)?;
    Ok(())
}

/// How long a thread of this process has run, by its kernel thread id.
pub fn cpu_time(thread: i32) -> io::Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let clock = (!thread << 3) | THREAD_CLOCK;
    // SAFETY: `time` is a live timespec that the call fills; a clock that is none is an EINVAL.
    cvt(unsafe { libc::clock_gettime(clock, &raw mut time) } as isize)?;
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_to_the_core_it_was_given() {
        let all = cores();
        let Some(&last) = all.last() else { panic!("no core at all") };
        std::thread::spawn(move || {
            keep_to(&[last]).expect("one of its own cores");
            assert_eq!(cores(), [last]);
        })
        .join()
        .expect("it ends");
        assert_eq!(cores(), all, "the other threads are where they were");
    }

    #[test]
    fn the_time_of_a_thread_grows_while_it_works() {
        let me = std::fs::read_link("/proc/thread-self").expect("/proc is mounted");
        let me = me.file_name().and_then(|name| name.to_str()?.parse().ok()).expect("a number");
        let before = cpu_time(me).expect("it lives");
        let mut spins = 0_u64;
        while cpu_time(me).expect("it lives") < before + Duration::from_millis(1) {
            spins += 1;
        }
        assert!(spins > 0 && cpu_time(i32::MAX >> 4).is_err());
    }
}
