//! What a server computes: where several things share a machine, a better measure than the clock.

use std::fs;

use pgferry_tests::Cluster;

/// Seconds that all processes of a server have computed so far, those that have ended too.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cpu {
    /// In the server's own code.
    pub(crate) user: f64,
    /// In the system.
    pub(crate) system: f64,
}

/// Ticks per second in `/proc`, on every Linux.
const TICKS: f64 = 100.0;

impl Cpu {
    /// What a server has computed so far; nothing where it cannot be seen.
    pub(crate) fn of(cluster: &Cluster) -> Self {
        let file = cluster.dir().join("data/postmaster.pid");
        let postmaster: Option<u32> = fs::read_to_string(file)
            .ok()
            .and_then(|text| text.lines().next().and_then(|line| line.trim().parse().ok()));
        let Some(postmaster) = postmaster else { return Self::default() };
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut ticks = (0, 0);
        for (pid, stat) in pids.filter_map(|pid: u32| Some((pid, Stat::of(pid)?))) {
            if pid == postmaster {
                ticks.0 += stat.own.0 + stat.ended.0;
                ticks.1 += stat.own.1 + stat.ended.1;
            } else if stat.parent == postmaster {
                ticks.0 += stat.own.0;
                ticks.1 += stat.own.1;
            }
        }
        Self { user: ticks.0 as f64 / TICKS, system: ticks.1 as f64 / TICKS }
    }

    /// What one process has computed so far; nothing where it cannot be seen.
    pub(crate) fn of_process(pid: u32) -> Self {
        let (user, system) = Stat::of(pid).map_or((0, 0), |stat| stat.own);
        Self { user: user as f64 / TICKS, system: system as f64 / TICKS }
    }

    /// What has been added since an earlier look.
    pub(crate) fn since(self, before: Self) -> Self {
        Self { user: self.user - before.user, system: self.system - before.system }
    }
}

impl std::fmt::Display for Cpu {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "{:.1} + {:.1}", self.user, self.system)
    }
}

/// User and system ticks of one process, and of its children that have ended.
struct Stat {
    parent: u32,
    own: (u64, u64),
    ended: (u64, u64),
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before it may hold anything.
        let words: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
        Some(Self {
            parent: words.get(1)?.parse().ok()?,
            own: (number(11)?, number(12)?),
            ended: (number(13)?, number(14)?),
        })
    }
}
