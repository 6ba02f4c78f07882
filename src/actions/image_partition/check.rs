//! What is wrong with a layout, said all at once.

use super::{ImagePartition, declare};
use crate::build::CheckContext;
use crate::diagnostics::Diagnostics;
use crate::image::Layout;

pub(super) fn check(given: &ImagePartition, cx: &CheckContext<'_>, out: &mut Diagnostics) {
    let spec = declare::declare(given, cx.architecture, cx.sector_size);
    let Ok((_, findings)) = Layout::solve(&spec, &mut |_| Ok(1)) else { return };
    for finding in findings {
        let property = match finding.partition {
            Some(index) => format!("partitions[{index}].{}", finding.property),
            None => finding.property.to_owned(),
        };
        let diagnostic = match finding.severity {
            crate::diagnostics::Severity::Error => cx.error(&property, finding.message),
            crate::diagnostics::Severity::Warning => cx.warning(&property, finding.message),
        };
        out.push(diagnostic.hint(finding.hint));
    }
}
