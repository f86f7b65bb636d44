//! Which tenants and targets have something in the gap, as far as is known without reading it: they wait behind those that
//! cannot go.
//!
//! It is noted whenever a block is left to the disk. What was there when the log was opened is not known. What always holds:
//! none is forgotten of which something was noted that is still there, and of the others no more are remembered than of those;
//! without a gap none are.

use std::collections::HashMap;

use super::Waiting;
use crate::model::{TargetId, Tenant};

/// So many are remembered in any case.
const FEW: usize = 64;

/// The number of the newest block of each that was left to the disk.
#[derive(Default)]
pub(super) struct Behind {
    tenants: HashMap<Tenant, u64>,
    targets: HashMap<(TargetId, Option<Tenant>), u64>,
    /// With more of them it is looked which can be forgotten.
    many: usize,
}

impl Behind {
    /// A block is in the gap, which begins at `from`.
    pub(super) fn note(&mut self, one: &Waiting, from: u64) {
        if self.len() > self.many {
            self.tenants.retain(|_, newest| *newest >= from);
            self.targets.retain(|_, newest| *newest >= from);
            self.many = 2 * self.len() + FEW;
        }
        let newest = self.targets.entry((one.block.target, one.block.tenant.clone())).or_default();
        *newest = one.number.max(*newest);
        let Some(tenant) = &one.block.tenant else { return };
        match self.tenants.get_mut(tenant) {
            Some(newest) => *newest = one.number.max(*newest),
            None => drop(self.tenants.insert(tenant.clone(), one.number)),
        }
    }

    /// There is no gap any more.
    pub(super) fn forget_all(&mut self) {
        if self.len() > 0 {
            *self = Self::default();
        }
    }

    /// Whether there is anything of such a tenant with the number `from` or a higher one.
    pub(super) fn any_tenant(&self, from: u64, which: impl Fn(&Tenant) -> bool) -> bool {
        self.tenants.iter().any(|(tenant, newest)| *newest >= from && which(tenant))
    }

    /// The same of a target and who it is of.
    pub(super) fn any_target(&self, from: u64, which: impl Fn(TargetId, Option<&Tenant>) -> bool) -> bool {
        self.targets.iter().any(|((target, tenant), newest)| *newest >= from && which(*target, tenant.as_ref()))
    }

    pub(super) fn len(&self) -> usize {
        self.tenants.len() + self.targets.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::block;
    use super::*;

    #[test]
    fn whoever_has_nothing_there_any_more_is_forgotten_before_long() {
        let mut behind = Behind::default();
        for number in 0..10_000u64 {
            let of = format!("tenant-{number}");
            let one = Waiting { number, arrived: None, block: block(number as i64, &of) };
            let from = number.saturating_sub(100);
            behind.note(&one, from);
            assert!(behind.len() <= 4 * 101 + FEW + 2, "{number}: {}", behind.len());
            for there in from..=number {
                assert!(behind.any_target(from, |target, _| target == TargetId(there)), "{number}: {there}");
                assert!(behind.any_tenant(from, |tenant| tenant.as_str().ends_with(&format!("-{there}"))));
            }
            assert!(!behind.any_target(from, |target, _| target.0 < from));
        }
    }
}
