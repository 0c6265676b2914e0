package quote

// GPT is a UEFI_GPT_DATA: the partition table of the boot disk (PFP 10.2).
type GPT struct {
	Disk       GUID
	Partitions []Partition
}

// Partition is a GPT partition entry (UEFI 2.10, section 5.3.3).
type Partition struct {
	Type, GUID  GUID
	First, Last uint64 // LBAs, inclusive
	Name        string
}

// ParseGPT decodes an event of EV_EFI_GPT_EVENT or EV_EFI_GPT_EVENT2.
func ParseGPT(data []byte) (GPT, error) {
	r := littleEndian("UEFI_GPT_DATA", data)
	var g GPT
	r.bytes(56, "UEFIPartitionHeader") // up to DiskGUID (UEFI 2.10, section 5.3.2)
	g.Disk = r.guid("DiskGUID")
	r.bytes(12, "UEFIPartitionHeader")
	size := r.u32("SizeOfPartitionEntry")
	r.bytes(4, "PartitionEntryArrayCRC32")
	n := r.u64("NumberOfPartitions")
	if r.err == nil && n > 0 && (size < 128 || size > 4096) {
		r.fail("SizeOfPartitionEntry: %d, want 128 to 4096", size)
	}
	for i := uint64(0); i < n && r.err == nil; i++ {
		e := littleEndian("GPT entry", r.bytes(int(size), "Partitions"))
		if r.err != nil {
			break
		}
		p := Partition{Type: e.guid("PartitionTypeGUID"), GUID: e.guid("UniquePartitionGUID")}
		p.First = e.u64("StartingLBA")
		p.Last = e.u64("EndingLBA")
		e.u64("Attributes")
		p.Name = decodeUTF16(e.bytes(72, "PartitionName"))
		g.Partitions = append(g.Partitions, p)
	}
	return g, r.end()
}
