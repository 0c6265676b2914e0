#!/usr/bin/env bash
# The guest's kernel and initial file system: a kernel package of this Debian, and an
# init of this project's. guest.sh FOLDER, which holds init and deepattest.
set -euo pipefail
work=$1
package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends:/ {print $2; exit}')
version=${package#linux-image-}
cache=${XDG_CACHE_HOME:-/var/cache}/deepattest-openstack
if [ ! -e "$cache/$version/boot/vmlinuz-$version" ]; then
	mkdir -p "$cache"
	tmp=$(mktemp -d "$cache/.new.XXXXXX")
	(cd "$tmp" && apt-get download "$package" >/dev/null 2>&1 && dpkg-deb -x "$package"_*.deb . && rm ./*.deb)
	rm -rf "${cache:?}/$version"
	mv "$tmp" "$cache/$version"
fi
kernel=$cache/$version
[ -e "$kernel/lib/modules/$version/modules.dep" ] || depmod -b "$kernel" "$version"
cp "$kernel/boot/vmlinuz-$version" "$work/vmlinuz"

root=$work/root
mkdir -p "$root/modules" "$root/dev" "$root/proc" "$root/sys" "$root/run" "$root/tmp" "$root/etc"
for m in virtio_pci virtio_net virtio_scsi sd_mod sr_mod; do
	modprobe -d "$kernel" -S "$version" --show-depends $m
done | awk '$1 == "insmod" && !seen[$2]++ {print $2}' | while read -r file; do
	cp "$file" "$root/modules/"
	basename "$file" >>"$root/modules/order"
done
cp "$work/init" "$root/init"
cp "$work/deepattest" "$root/deepattest"
(cd "$root" && find . | cpio -o -H newc 2>/dev/null) | gzip -1 >"$work/initrd"
