#include "textflag.h"

// func Read(p *uint64)
TEXT ·Read(SB), NOSPLIT, $0-8
	MOVQ p+0(FP), AX
	PREFETCHT0 (AX)
	RET

// func Behind(p *byte)
TEXT ·Behind(SB), NOSPLIT, $0-8
	MOVQ p+0(FP), AX
	PREFETCHT0 64(AX)
	PREFETCHT0 128(AX)
	RET
