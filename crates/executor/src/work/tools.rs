//! The toolbox of an attempt's agent: the tree, the rules, contained commands, and checks of what it has so far.

use std::io;
use std::sync::Arc;

use model::documents::Invariant;

use super::Work;
use super::agent_tree::{AgentTree, Reading};
use crate::checks::Checks;
use crate::toolbox::{Bounds, CheckReport, Shell, Toolbox, Tree};

impl Work<'_> {
    pub(super) fn toolbox(&self) -> io::Result<Toolbox> {
        let trial = Arc::new(Trial {
            checks: self.checks.clone(),
            tree: self.tree.clone(),
            reading: self.reading(),
            bounds: self.bounds.clone(),
        });
        Ok(Toolbox {
            tree: Tree::open(&self.folder.tree())?,
            rules: Arc::new(self.rules.clone()),
            shell: Shell::new(self.containment.clone(), self.folder.agent()),
            check: Arc::new(move |name| {
                let trial = Arc::clone(&trial);
                Box::pin(async move { trial.run(&name).await })
            }),
            bounds: self.bounds.clone(),
        })
    }
}

/// Runs one invariant on the tree as it is now, in the way the last check will.
struct Trial {
    checks: Checks,
    tree: AgentTree,
    reading: Reading,
    bounds: Bounds,
}

impl Trial {
    async fn run(&self, name: &str) -> Option<CheckReport> {
        let invariant = self.checks.invariants.iter().find(|invariant| invariant.name == name)?;
        Some(self.check(invariant.clone()).await.unwrap_or_else(|problem| CheckReport {
            passed: false,
            text: format!("the check could not be run: {problem}"),
        }))
    }

    async fn check(&self, invariant: Invariant) -> Result<CheckReport, String> {
        let change = self.tree.read(&self.reading).await.map_err(|error| error.to_string())?.change;
        let checks = Checks { invariants: vec![invariant], ..self.checks.clone() };
        let checked = checks.run(change.candidate(), "trial", &self.bounds).await;
        let checked = checked.map_err(|error| error.to_string())?;
        let one = checked.first().ok_or("there was nothing to run")?;
        let output = one.excerpt().map(|excerpt| excerpt.to_string()).unwrap_or_default();
        let text = format!("{}\n{output}", one.report.outcome);
        Ok(CheckReport { passed: one.report.outcome.is_pass(), text })
    }
}
