//! What the demo measured, for programs as JSON and for people as a table.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgferry_plan::Kind;
use pgferry_tests::LedgerReport;
use serde::Serialize;
use serde_json::{Value, json};

/// Everything that was measured.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) copy: Copy,
    pub(crate) switchovers: Vec<Switchover>,
    pub(crate) ledger: Option<LedgerReport>,
    pub(crate) leftovers: Vec<String>,
}

/// The copy as the daemon tells it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Copy {
    rows: u64,
    bytes: u64,
    seconds: f64,
}

/// One switchover: what the daemon measured, and what the unluckiest client saw.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Switchover {
    kind: Kind,
    write_stall_ms: f64,
    worst_client_gap_ms: f64,
}

impl Report {
    /// Begins with the copy's figures, from the migration's description.
    pub(crate) fn of_copy(migration: &Value) -> Self {
        let copy = &migration["copy"];
        Self {
            copy: Copy {
                rows: copy["rows"].as_u64().unwrap_or_default(),
                bytes: copy["bytes"].as_u64().unwrap_or_default(),
                seconds: copy["seconds"].as_f64().unwrap_or_default(),
            },
            switchovers: Vec::new(),
            ledger: None,
            leftovers: Vec::new(),
        }
    }

    /// Takes the clients' final reckoning.
    pub(crate) fn ledger(&mut self, ledger: &LedgerReport) {
        self.ledger = Some(ledger.clone());
    }

    /// Whether nothing was lost, doubled or left behind.
    pub(crate) fn is_good(&self) -> bool {
        self.leftovers.is_empty()
            && self.ledger.as_ref().is_some_and(|l| l.is_clean() && l.acknowledged > 0)
    }

    /// Writes `target/demo/report.json` and returns where that is.
    pub(crate) fn write(&self) -> std::io::Result<PathBuf> {
        let dir = target_dir().join("demo");
        std::fs::create_dir_all(&dir)?;
        let path = dir.join("report.json");
        std::fs::write(&path, format!("{:#}\n", self.json()))?;
        Ok(path)
    }

    fn json(&self) -> Value {
        let ledger = self.ledger.as_ref();
        json!({
            "acknowledged": ledger.map(|l| l.acknowledged),
            "lost": ledger.map(|l| l.lost),
            "duplicated": ledger.map(|l| l.duplicated),
            "copy": self.copy,
            "switchovers": self.switchovers,
            "leftovers": self.leftovers.len(),
            "median_write_stall_ms": self.median_stall(),
        })
    }

    /// What a person reads at the end.
    pub(crate) fn table(&self) -> String {
        let mut text =
            format!("{:<12}{:>16}{:>20}\n", "switchover", "write stall", "worst client gap");
        for s in &self.switchovers {
            let _ = writeln!(
                text,
                "{:<12}{:>13.1} ms{:>17.1} ms",
                s.kind.as_str(),
                s.write_stall_ms,
                s.worst_client_gap_ms
            );
        }
        let _ = writeln!(text, "{:<12}{:>13.1} ms", "median", self.median_stall());
        let _ = writeln!(text, "\ncopied {}", self.copy);
        if let Some(l) = &self.ledger {
            let _ = writeln!(
                text,
                "{} commits acknowledged, {} lost, {} duplicated, {} torn, balances off by {}",
                grouped(l.acknowledged),
                l.lost,
                l.duplicated,
                l.torn,
                l.balance_off
            );
        }
        let _ = writeln!(text, "{} left over", self.leftovers.len());
        for what in &self.leftovers {
            let _ = writeln!(text, "  {what}");
        }
        text
    }

    fn median_stall(&self) -> f64 {
        let mut stalls: Vec<f64> = self.switchovers.iter().map(|s| s.write_stall_ms).collect();
        stalls.sort_by(f64::total_cmp);
        match stalls.len() {
            0 => 0.0,
            n if n % 2 == 1 => stalls[n / 2],
            n => (stalls[n / 2 - 1] + stalls[n / 2]) / 2.0,
        }
    }
}

impl Switchover {
    /// From the migration's description after it, and the clients' worst gap around it.
    ///
    /// A stall that the daemon does not tell is no stall of zero: it is NaN, which JSON prints as
    /// null and nobody can mistake for a result.
    pub(crate) fn of(migration: &Value, kind: Kind, gap: Duration) -> Self {
        Self {
            kind,
            write_stall_ms: migration["last_switchover"]["write_stall_ms"]
                .as_f64()
                .unwrap_or(f64::NAN),
            worst_client_gap_ms: gap.as_secs_f64() * 1000.0,
        }
    }
}

impl fmt::Display for Switchover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "writes stalled for {:.1} ms; the unluckiest client waited {:.1} ms between two commits",
            self.write_stall_ms, self.worst_client_gap_ms
        )
    }
}

impl fmt::Display for Copy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = self.bytes / (1 << 20);
        write!(f, "{} rows, {megabytes} MB in {:.1} s", grouped(self.rows), self.seconds)
    }
}

/// A number with its thousands apart: 1,234,567.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Where cargo builds: this program lies in `<target>/<profile>/`.
fn target_dir() -> PathBuf {
    std::env::current_exe()
        .ok()
        .and_then(|exe| exe.parent().and_then(Path::parent).map(Path::to_owned))
        .unwrap_or_else(|| PathBuf::from("target"))
}
