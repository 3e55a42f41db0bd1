//! Firmware with known holes: what is in use here and should not be. From general knowledge, to be checked with the vendor;
//! a version that is not listed is not thereby good.

/// A hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// In the vendor's name, whatever the case.
    vendor: &'static str,
    /// In the BMC's name.
    product: &'static str,
    /// First firmware without it; `None` = it depends on the build, and the vendor must be asked.
    fixed_in: Option<&'static [u64]>,
    /// Its number.
    pub cve: &'static str,
    /// What it means here.
    pub text: &'static str,
}

const TABLE: &[Hole] = &[
    Hole {
        vendor: "hp",
        product: "ilo 4",
        fixed_in: Some(&[2, 53]),
        cve: "CVE-2017-12542",
        text: "anybody who reaches it gets in without a password; update iLO 4 to 2.53 or later",
    },
    Hole {
        vendor: "dell",
        product: "idrac 8",
        fixed_in: Some(&[2, 52, 52, 52]),
        cve: "CVE-2018-1207",
        text: "anybody who reaches its web server runs code on it; update to 2.52.52.52 or later",
    },
    Hole {
        vendor: "dell",
        product: "idrac 7",
        fixed_in: Some(&[2, 52, 52, 52]),
        cve: "CVE-2018-1207",
        text: "anybody who reaches its web server runs code on it; update to 2.52.52.52 or later",
    },
    Hole {
        vendor: "ami",
        product: "",
        fixed_in: None,
        cve: "CVE-2024-54085",
        text: "MegaRAC before the builds of March 2025 lets Redfish requests in without a password; ask the board's vendor for a fixed build",
    },
    Hole {
        vendor: "ami",
        product: "",
        fixed_in: None,
        cve: "CVE-2023-34329",
        text: "MegaRAC before the builds of July 2023 takes forged headers for a login; ask the board's vendor for a fixed build",
    },
];

/// The numbers of a version: `iLO 4 v2.40` → 2, 40, if `product` is taken off first.
fn numbers(version: &str) -> Vec<u64> {
    // The last word that begins with a digit, an optional v before it.
    let mut words = version.split_whitespace().rev().map(|word| word.trim_start_matches(['v', 'V']));
    let word = words.find(|word| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit()));
    word.unwrap_or_default().split(['.', '-']).map_while(|part| part.parse().ok()).collect()
}

/// The holes that this firmware has, or may have.
pub fn holes(vendor: &str, product: &str, firmware: &str) -> impl Iterator<Item = Hole> {
    let (vendor, product) = (vendor.to_lowercase(), format!("{product} {firmware}").to_lowercase());
    let seen = numbers(firmware);
    TABLE.iter().copied().filter(move |hole| {
        let ours = vendor.contains(hole.vendor) && product.contains(hole.product);
        ours && hole.fixed_in.is_none_or(|fixed| !seen.is_empty() && seen.as_slice() < fixed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_decide() {
        let of = |vendor, product, firmware| holes(vendor, product, firmware).map(|hole| hole.cve).collect::<Vec<_>>();
        assert_eq!(of("HP", "ProLiant DL380 Gen9", "iLO 4 v2.40"), ["CVE-2017-12542"]);
        assert_eq!(of("HPE", "ProLiant DL380 Gen9 iLO 4", "2.53"), [""; 0]);
        assert_eq!(of("HPE", "iLO 5", "iLO 5 v2.40"), [""; 0]);
        assert_eq!(of("Dell Inc.", "iDRAC 8", "2.50.50.50"), ["CVE-2018-1207"]);
        assert_eq!(of("Dell Inc.", "iDRAC 8", "2.70.70.70"), [""; 0]);
        assert_eq!(of("Dell Inc.", "iDRAC 8", "no version"), [""; 0]);
        assert_eq!(of("AMI", "MegaRAC SP", "13.02"), ["CVE-2024-54085", "CVE-2023-34329"]);
    }
}
