//! Finds a thread that can be borrowed. Threads that wait in a system call come first: `/proc` tells where they stand without
//! touching them. Only if none of them can be borrowed, those that compute are followed to the end of their next system calls, or
//! until they wait in one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libc::user_regs_struct;

use super::safe_points::{Point, SafePoints, Unfit};
use super::tracee::{Stop, Tracee, begun_anew, is_broken_off, wait_for_child};

/// At most so many computing threads are followed.
const MOST_FOLLOWED: usize = 32;

/// A thread that stands still and can be borrowed, with the registers by which it goes on.
pub struct Found {
    pub tracee: Tracee,
    pub registers: user_regs_struct,
    /// When it was stopped.
    pub since: Instant,
}

/// Looks for so long.
///
/// # Errors
///
/// Where the threads stood.
pub fn find(points: &SafePoints, limit: Duration) -> Result<Found, String> {
    let end = Instant::now() + limit;
    let mut followed: Vec<Tracee> = Vec::new();
    let mut rounds = 0;
    loop {
        let mut seen = BTreeMap::new();
        for tid in threads(points.pid) {
            let known = followed.iter().position(|tracee| tracee.tid() == tid);
            if known.is_some_and(|at| followed[at].look().is_some()) {
                *seen.entry(Unfit::Computes).or_insert(0) += 1;
                continue;
            }
            match point_of(tid).map_or(Some(Unfit::Computes), |at| points.why_not(&at)) {
                None => {
                    // One that was followed may wait now, in a call that does not end.
                    let tracee = match known {
                        Some(at) => Some(followed.swap_remove(at)),
                        None => seize(tid)?,
                    };
                    if let Some(found) = tracee.and_then(|tracee| take(points, tracee, end)) {
                        return Ok(found);
                    }
                }
                Some(why) if known.is_some() => *seen.entry(why).or_insert(0) += 1,
                // In the first round, those that wait come before those that compute.
                Some(Unfit::Computes) if rounds > 0 && followed.len() < MOST_FOLLOWED => {
                    *seen.entry(Unfit::Computes).or_insert(0) += 1;
                    followed.extend(follow(tid)?);
                }
                Some(why) => *seen.entry(why).or_insert(0) += 1,
            }
        }
        if seen.is_empty() && threads(points.pid).is_empty() {
            return Err("has ended meanwhile".into());
        }
        if let Some(found) = look_at(points, &mut followed) {
            return Ok(found);
        }
        if Instant::now() >= end {
            return Err(said(&seen, limit));
        }
        rounds += 1;
        wait_for_child(end);
    }
}

fn threads(pid: u32) -> Vec<i32> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task"));
    let names = entries.into_iter().flatten().flatten();
    names
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Where a thread that waits in a system call stands; none where it computes.
fn point_of(tid: i32) -> Option<Point> {
    let text = std::fs::read_to_string(format!("/proc/{tid}/syscall")).ok()?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let number = |at: usize| {
        let word = words.get(at)?;
        u64::from_str_radix(word.strip_prefix("0x")?, 16).ok()
    };
    Some(Point {
        call: words.first()?.parse().ok().filter(|call| *call >= 0)?,
        second: number(2)?,
        stack: number(7)?,
        place: number(8)?,
    })
}

fn point_at(registers: &user_regs_struct) -> Point {
    Point {
        call: registers.orig_rax as i64,
        second: registers.rsi,
        place: registers.rip,
        stack: registers.rsp,
    }
}

fn seize(tid: i32) -> Result<Option<Tracee>, String> {
    match Tracee::seize(tid) {
        Ok(tracee) => Ok(Some(tracee)),
        Err(why) if why.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(why) => Err(format!("may not be traced: {why}")),
    }
}

/// Stops a thread that waits, and looks at it once more. One that has gone on meanwhile is given back.
fn take(points: &SafePoints, mut tracee: Tracee, end: Instant) -> Option<Found> {
    let since = Instant::now();
    if !tracee.halt(end) {
        return None;
    }
    let now = tracee.registers().ok()?;
    let registers = begun_anew(tracee.tid(), now);
    // The kernel has broken the call off, and makes it anew when the thread goes on.
    let waits = is_broken_off(&now) || registers != now;
    let fits = waits && points.why_not(&point_at(&now)).is_none();
    fits.then_some(Found {
        tracee,
        registers,
        since,
    })
}

/// Follows a thread that computes: it runs on, and stops at the beginning and the end of its system calls.
fn follow(tid: i32) -> Result<Option<Tracee>, String> {
    let tracee = seize(tid)?;
    Ok(tracee.filter(|tracee| tracee.interrupt().is_ok()))
}

/// Looks at those that have stopped. They go on, but for one that can be borrowed, which leaves the list.
fn look_at(points: &SafePoints, followed: &mut Vec<Tracee>) -> Option<Found> {
    let mut at = 0;
    while at < followed.len() {
        let since = Instant::now();
        let tracee = &mut followed[at];
        let stop = tracee.look();
        if stop == Some(Stop::Gone) {
            followed.swap_remove(at);
            continue;
        }
        if stop == Some(Stop::Call)
            && let Some(registers) = at_end_of_call(tracee)
            && points.why_not(&point_at(&registers)).is_none()
        {
            let tracee = followed.swap_remove(at);
            return Some(Found {
                tracee,
                registers,
                since,
            });
        }
        if stop.is_some() {
            // It has been killed if this fails, which the next look tells.
            let _ = tracee.resume(true);
        }
        at += 1;
    }
    None
}

/// The registers, if the thread stands at the end of a system call that is whole.
fn at_end_of_call(tracee: &Tracee) -> Option<user_regs_struct> {
    let registers = tracee.registers().ok()?;
    // At the beginning the kernel has put this error there.
    let begins = registers.rax as i64 == -i64::from(libc::ENOSYS);
    let is_call = (registers.orig_rax as i64) >= 0;
    (is_call && !begins && !is_broken_off(&registers)).then_some(registers)
}

fn said(seen: &BTreeMap<Unfit, usize>, limit: Duration) -> String {
    let parts: Vec<String> = seen
        .iter()
        .map(|(why, count)| format!("{count} {}", why.text()))
        .collect();
    format!(
        "has had no thread that could be borrowed for {} seconds: of its threads, {}",
        limit.as_secs_f64(),
        parts.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted() {
        let seen = BTreeMap::from([(Unfit::Computes, 3), (Unfit::Waits, 1)]);
        assert_eq!(
            said(&seen, Duration::from_millis(500)),
            "has had no thread that could be borrowed for 0.5 seconds: of its threads, 3 computed without a system call, 1 waited for a lock"
        );
    }
}
