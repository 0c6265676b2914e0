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
	r.Bytes(56, "UEFIPartitionHeader") // up to DiskGUID (UEFI 2.10, section 5.3.2)
	g.Disk = r.guid("DiskGUID")
	r.Bytes(12, "UEFIPartitionHeader")
	size := r.U32("SizeOfPartitionEntry")
	r.Bytes(4, "PartitionEntryArrayCRC32")
	n := r.U64("NumberOfPartitions")
	if r.Err == nil && n > 0 && (size < 128 || size > 4096) {
		r.Fail("SizeOfPartitionEntry: %d, want 128 to 4096", size)
	}
	for i := uint64(0); i < n && r.Err == nil; i++ {
		e := littleEndian("GPT entry", r.Bytes(int(size), "Partitions"))
		if r.Err != nil {
			break
		}
		p := Partition{Type: e.guid("PartitionTypeGUID"), GUID: e.guid("UniquePartitionGUID")}
		p.First = e.U64("StartingLBA")
		p.Last = e.U64("EndingLBA")
		e.U64("Attributes")
		p.Name = decodeUTF16(e.Bytes(72, "PartitionName"))
		g.Partitions = append(g.Partitions, p)
	}
	return g, r.End()
}
