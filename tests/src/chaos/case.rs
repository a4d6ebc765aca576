//! One cell of the matrix: kind, step, place, fault; written and read as `cutover:yield:before:kill`.

use std::fmt;
use std::str::FromStr;

use pgferry_plan::{Kind, Step};

use super::fault::Fault;

/// The steps of a switchover, each with whether it acts in an ordinary run.
pub const SWITCHOVER: [(Step, bool); 10] = [
    (Step::CheckVerdict, false),
    (Step::WarmSequences, true),
    (Step::PauseTraffic, false),
    (Step::FenceActive, true),
    (Step::Drain, true),
    (Step::SetSequences, true),
    (Step::Yield, true),
    (Step::OpenOther, true),
    (Step::ResumeTraffic, false),
    (Step::Confirm, true),
];

/// Where in a step the fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Its intent, and with it the step before it, is about to be written.
    Append,
    /// Its intent is in the journal, and its action not yet sent.
    Before,
    /// Its action was answered.
    After,
    /// It was seen to be done, and that is not yet in the journal.
    Done,
}

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    /// Which way.
    pub kind: Kind,
    /// At which step.
    pub step: Step,
    /// Where in it.
    pub place: Place,
    /// What goes wrong there.
    pub fault: Fault,
}

impl Place {
    /// Every place.
    pub const ALL: [Place; 4] = [Place::Append, Place::Before, Place::After, Place::Done];

    /// Its word on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Place::Append => "append",
            Place::Before => "before",
            Place::After => "after",
            Place::Done => "done",
        }
    }

    fn failpoint(self) -> &'static str {
        match self {
            Place::Append => "before_append",
            Place::Before => "before_effect",
            Place::After => "after_effect",
            Place::Done => "seen_done",
        }
    }
}

impl Case {
    /// The daemon's name of the point.
    #[must_use]
    pub fn failpoint(&self) -> String {
        format!("{}:{}", self.place.failpoint(), self.step)
    }

    /// The whole matrix: a death at every place of every step, every other fault once a step, at
    /// the place where the most is under way.
    #[must_use]
    pub fn matrix() -> Vec<Case> {
        let mut cases = Vec::new();
        for kind in Kind::BOTH {
            for (step, acts) in SWITCHOVER {
                for fault in Fault::ALL {
                    let places: &[Place] = match (acts, fault) {
                        // With a PgBouncer both steps of the traffic act.
                        (false, Fault::PgbouncerKilled) if of_traffic(step) => {
                            &[Place::Before, Place::After, Place::Done]
                        }
                        (false, _) => &[Place::Done],
                        (true, Fault::Kill) => &[Place::Append, Place::Before, Place::After],
                        (true, Fault::FreezeTakenOver) => &[Place::Append, Place::Before],
                        (true, _) => &[Place::Before],
                    };
                    cases.extend(places.iter().map(|&place| Case { kind, step, place, fault }));
                }
            }
        }
        cases
    }
}

fn of_traffic(step: Step) -> bool {
    matches!(step, Step::PauseTraffic | Step::ResumeTraffic)
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:{}", self.kind.as_str(), self.step, self.place.as_str(), self.fault)
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = |word: &str| format!("{text}: {word:?} is not known");
        let words: Vec<&str> = text.split(':').collect();
        let [kind, step, place, fault] = words[..] else {
            return Err(format!("{text}: a case is KIND:STEP:PLACE:FAULT"));
        };
        Ok(Self {
            kind: *Kind::BOTH.iter().find(|k| k.as_str() == kind).ok_or_else(|| unknown(kind))?,
            step: SWITCHOVER
                .iter()
                .map(|(known, _)| *known)
                .find(|known| known.to_string() == step)
                .ok_or_else(|| unknown(step))?,
            place: *Place::ALL
                .iter()
                .find(|p| p.as_str() == place)
                .ok_or_else(|| unknown(place))?,
            fault: *Fault::ALL
                .iter()
                .find(|f| f.as_str() == fault)
                .ok_or_else(|| unknown(fault))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_of_the_matrix_is_read_back_from_its_name() {
        let matrix = Case::matrix();
        assert!(matrix.len() > 200, "{}", matrix.len());
        for case in matrix {
            assert_eq!(case.to_string().parse(), Ok(case));
        }
        assert!("cutover:yield:before:nothing".parse::<Case>().is_err());
        assert!("cutover:yield".parse::<Case>().is_err());
    }
}
