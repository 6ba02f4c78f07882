//! How diagnostics are printed.

use super::Diagnostic;

pub(super) fn render(diagnostics: &[Diagnostic], _colour: bool) -> String {
    diagnostics.iter().map(|d| format!("{:?}: {}\n", d.severity, d.message)).collect()
}
