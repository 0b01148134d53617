//! Which IP addresses are public: the ones that a connection may reach without `allow_private`.
//!
//! Pure. It resolves no name: whoever does must ask here again for every address that came out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Networks of IPv4 that are not public (IANA special-purpose registry, RFC 6890 and its successors), as address and
/// prefix length.
const NOT_PUBLIC_V4: &[(Ipv4Addr, u32)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8),        // "this network", with the unspecified address
    (Ipv4Addr::new(10, 0, 0, 0), 8),       // private
    (Ipv4Addr::new(100, 64, 0, 0), 10),    // shared; 100.100.100.200 is a metadata service
    (Ipv4Addr::new(127, 0, 0, 0), 8),      // loopback
    (Ipv4Addr::new(168, 63, 129, 16), 32), // a metadata service at a public address (Azure's)
    (Ipv4Addr::new(169, 254, 0, 0), 16),   // link-local; 169.254.169.254 is the usual metadata service
    (Ipv4Addr::new(172, 16, 0, 0), 12),    // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),     // protocol assignments; 192.0.0.192 is a metadata service
    (Ipv4Addr::new(192, 0, 2, 0), 24),     // documentation
    (Ipv4Addr::new(192, 88, 99, 0), 24),   // 6to4 relays, deprecated
    (Ipv4Addr::new(192, 168, 0, 0), 16),   // private
    (Ipv4Addr::new(198, 18, 0, 0), 15),    // benchmarks
    (Ipv4Addr::new(198, 51, 100, 0), 24),  // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),   // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4),      // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),      // reserved, with the broadcast address
];

/// The one network of IPv6 that is global unicast (RFC 4291, section 2.4). Outside it are loopback, link-local,
/// unique-local, multicast, v4-mapped, v4-compatible and NAT64 addresses; the last three have a v4 address in them.
const GLOBAL_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Parts of it that are not public.
const NOT_PUBLIC_V6: &[(Ipv6Addr, u32)] = &[
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments, with Teredo
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4: a v4 address is in it
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];

/// Whether an address is one of the public internet, and no metadata service of a cloud.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !NOT_PUBLIC_V4.iter().any(|(network, bits)| within_v4(v4, *network, *bits)),
        IpAddr::V6(v6) => {
            within_v6(v6, GLOBAL_V6.0, GLOBAL_V6.1)
                && !NOT_PUBLIC_V6.iter().any(|(network, bits)| within_v6(v6, *network, *bits))
        }
    }
}

// The lengths stand in the tables above: from 1 to the size of the address.
fn within_v4(address: Ipv4Addr, network: Ipv4Addr, bits: u32) -> bool {
    (u32::from(address) ^ u32::from(network)) >> (32 - bits) == 0
}

fn within_v6(address: Ipv6Addr, network: Ipv6Addr, bits: u32) -> bool {
    (u128::from(address) ^ u128::from(network)) >> (128 - bits) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(public: bool, addresses: &[&str]) {
        for text in addresses {
            assert_eq!(is_public(text.parse().unwrap()), public, "{text}");
        }
    }

    #[test]
    fn addresses_of_the_internet_are_public() {
        check(true, &["1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0"]);
        check(true, &["126.255.255.255", "128.0.0.1", "168.63.129.15", "169.253.255.255", "172.15.255.255"]);
        check(true, &["172.32.0.0", "192.0.1.1", "192.167.255.255", "192.169.0.0", "198.20.0.0", "223.255.255.255"]);
        check(true, &["2606:4700::1111", "2a00:1450:4001::1", "2001:200::1", "3ffe::1", "2003::1"]);
    }

    #[test]
    fn every_other_range_is_not() {
        check(false, &["0.0.0.0", "0.1.2.3", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.127.255.255"]);
        check(false, &["127.0.0.1", "127.255.255.255", "169.254.0.1", "172.16.0.0", "172.31.255.255"]);
        check(false, &["192.168.0.0", "192.168.255.255", "192.0.2.10", "198.18.0.1", "198.19.255.255"]);
        check(false, &["198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"]);
        check(false, &["::", "::1", "fe80::1", "febf::1", "fec0::1", "fc00::1", "fdff::1", "ff02::1", "100::1"]);
        check(false, &["2001::1", "2001:db8::1", "2002:7f00:1::", "3fff::1", "5f00::1", "4000::1"]);
    }

    #[test]
    fn metadata_services_are_not_public_wherever_they_are() {
        check(false, &["169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192"]);
        check(false, &["fd00:ec2::254", "fd20:ce::254"]);
    }

    #[test]
    fn a_v4_address_inside_a_v6_address_is_never_public() {
        check(false, &["::ffff:10.0.0.1", "::ffff:8.8.8.8", "::ffff:127.0.0.1", "::8.8.8.8"]);
        check(false, &["64:ff9b::a00:1", "64:ff9b::808:808", "64:ff9b:1::1"]);
    }
}
