//! The simulator's own seeded generator: the same seed gives the same world on every machine and version.

/// SplitMix64 (Steele, Lea, Flood 2014): one addition and three multiplications a number, any seed is good.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// A generator for a seed.
    #[must_use]
    pub fn new(seed: u64) -> Chance {
        Chance(seed ^ 0x005e_ed0f_ac4e_d1c5)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; zero if the bound is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64 }
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True in so many percent of cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of a list; `None` if it is empty.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        list.get(self.below(list.len() as u64) as usize)
    }

    /// A waiting time with this mean, exponentially distributed, in whole milliseconds. Integer arithmetic only, so
    /// that no platform's logarithm changes a seed: von Neumann's method of comparing runs of uniform numbers.
    pub fn wait(&mut self, mean: u64) -> u64 {
        let mut whole: u64 = 0;
        loop {
            let first = self.bits() >> 32;
            let mut last = first;
            let mut odd = true;
            loop {
                let next = self.bits() >> 32;
                if next >= last {
                    break;
                }
                last = next;
                odd = !odd;
            }
            if odd {
                let fraction = ((u128::from(first) * u128::from(mean)) >> 32) as u64;
                return whole.saturating_mul(mean).saturating_add(fraction);
            }
            whole += 1;
            if whole >= 64 {
                return mean.saturating_mul(64);
            }
        }
    }

    /// A generator of its own for one part of the world, so that a draw there does not shift all others.
    pub fn branch(&mut self, salt: u64) -> Chance {
        Chance(self.bits() ^ salt.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_have_the_mean_that_was_asked_for() {
        let mut chance = Chance::new(7);
        let total: u64 = (0..20_000).map(|_| chance.wait(1_000)).sum();
        let mean = total / 20_000;
        assert!((950..1_050).contains(&mean), "mean {mean}");
    }

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let (mut a, mut b) = (Chance::new(3), Chance::new(3));
        assert!((0..100).all(|_| a.bits() == b.bits()));
        assert_ne!(Chance::new(4).bits(), Chance::new(3).bits());
    }
}
