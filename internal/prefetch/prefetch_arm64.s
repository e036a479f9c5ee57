#include "textflag.h"

// func Read(p *uint64)
TEXT ·Read(SB), NOSPLIT, $0-8
	MOVD p+0(FP), R0
	PRFM (R0), PLDL1KEEP
	RET

// func Behind(p *byte)
TEXT ·Behind(SB), NOSPLIT, $0-8
	MOVD p+0(FP), R0
	ADD $64, R0, R1
	PRFM (R1), PLDL1KEEP
	ADD $128, R0, R1
	PRFM (R1), PLDL1KEEP
	RET
