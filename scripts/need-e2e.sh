#!/usr/bin/env bash
# Installs the programs that the end-to-end tests need and this machine lacks, and
# unpacks a kernel, boot loaders and a small Debian below a cache folder, without
# installing those. Changes nothing when all is there. Prints the folder.
#
#   need-e2e.sh [--no-rootfs]     DEEPATTEST_E2E_CACHE names another folder
set -euo pipefail

cache=${DEEPATTEST_E2E_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/deepattest-e2e}
say() { echo "need-e2e: $*" >&2; }
fail() { say "$*"; exit 1; }

[ "$(uname -m)" = x86_64 ] || fail "the guests are x86-64, and so must this machine be"
command -v apt-get >/dev/null || fail "this needs Debian 12 or a relative: there is no apt-get here to take kernel and boot loaders from"

as_root=()
if [ "$(id -u)" -ne 0 ]; then
	command -v sudo >/dev/null || fail "making file systems for guests needs root: run this as root, or install sudo"
	as_root=(sudo)
fi

# program:package
missing=()
for pair in qemu-system-x86_64:qemu-system-x86 swtpm:swtpm swtpm_setup:swtpm-tools swtpm_localca:swtpm-tools mformat:mtools sfdisk:fdisk \
	sbsign:sbsigntool objcopy:binutils openssl:openssl depmod:kmod mke2fs:e2fsprogs debugfs:e2fsprogs mmdebstrap:mmdebstrap systemd-analyze:systemd \
	cloud-init:cloud-init; do
	PATH=$PATH:/sbin:/usr/sbin command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
done
[ -e /usr/share/OVMF/OVMF_CODE_4M.fd ] || missing+=(ovmf)
[ -e /usr/share/seabios/bios-256k.bin ] || missing+=(seabios)
updated=
update() { [ -n "$updated" ] || "${as_root[@]}" apt-get update >/dev/null; updated=1; }
if [ ${#missing[@]} -gt 0 ]; then
	say "installing ${missing[*]} with apt-get"
	install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}")
	"${install[@]}" >/dev/null 2>&1 || { update; "${install[@]}" >/dev/null; }
fi

mkdir -p "$cache"
if [ ! -e "$cache/x.done" ]; then
	kernel=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ {print $2; exit}')
	if [ -z "$kernel" ]; then
		update
		kernel=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ {print $2; exit}')
	fi
	[ -n "$kernel" ] || fail "apt knows no package linux-image-cloud-amd64"
	say "unpacking $kernel and boot loaders below $cache"
	rm -rf "$cache/x" "$cache/debs"
	mkdir -p "$cache/x" "$cache/debs"
	(cd "$cache/debs" && { apt-get download "$kernel" systemd-boot-efi shim-signed grub-efi-amd64-signed >/dev/null 2>&1 ||
		{ update; apt-get download "$kernel" systemd-boot-efi shim-signed grub-efi-amd64-signed >/dev/null; }; })
	for deb in "$cache"/debs/*.deb; do dpkg -x "$deb" "$cache/x"; done
	rm -rf "$cache/debs"
	for modules in "$cache"/x/lib/modules/*; do PATH=$PATH:/sbin:/usr/sbin depmod -b "$cache/x" "${modules##*/}"; done
	# Debian's published test key; its passphrase is its name.
	openssl rsa -in /usr/share/ovmf/PkKek-1-snakeoil.key -passin pass:snakeoil -out "$cache/snakeoil.key" 2>/dev/null
	cp /usr/share/ovmf/PkKek-1-snakeoil.pem "$cache/snakeoil.pem"
	touch "$cache/x.done"
fi

# A small Debian as a disk. initramfs-tools and dracut are in it to make their
# images with; dracut-network, which would not be installed beside the former, is
# only unpacked.
packages=systemd-sysv,udev,dbus,kmod,tpm-udev,iproute2,initramfs-tools,dracut-core,zstd
if [ "${1:-}" != --no-rootfs ] && [ "$(cat "$cache/rootfs.packages" 2>/dev/null)" != "$packages" ]; then
	say "making a small Debian in $cache/rootfs (about a minute)"
	"${as_root[@]}" rm -rf "$cache/rootfs" "$cache/rootfs.ext4"
	"${as_root[@]}" mmdebstrap --quiet --variant=minbase --include="$packages" \
		--customize-hook='rm -rf "$1"/usr/share/{doc,man,locale,info} "$1"/var/lib/apt/lists/*' bookworm "$cache/rootfs"
	(cd "$cache" && apt-get download dracut-network >/dev/null 2>&1)
	"${as_root[@]}" dpkg -x "$cache"/dracut-network_*.deb "$cache/rootfs"
	rm -f "$cache"/dracut-network_*.deb
	"${as_root[@]}" cp -a "$cache/x/lib/modules" "$cache/rootfs/usr/lib/"
	"${as_root[@]}" cp -a "$cache"/x/boot/config-* "$cache/rootfs/boot/" # mkinitramfs asks it what the kernel can read
	"${as_root[@]}" env PATH="$PATH:/sbin:/usr/sbin" mke2fs -q -t ext4 -O ^has_journal -L root -d "$cache/rootfs" "$cache/rootfs.ext4" 700M >/dev/null
	"${as_root[@]}" chown "$(id -u)" "$cache/rootfs.ext4"
	echo "$packages" >"$cache/rootfs.packages"
fi
echo "$cache"
