// Copyright The weft Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"sync"
	"testing"
)

// A row that is there during the whole walk comes once, whatever comes and goes around it.
func TestTable_AllWhileOthersWrite(t *testing.T) {
	const stable, churn = 500, 5000
	table := NewTable[int]("test", Equal[int])
	for k := range stable {
		table.Put("stable", 0, k, 0)
	}
	c := table.Cursor()
	defer c.Close() // after the writer, which reads it, has ended
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for round := 1; ; round++ {
			select {
			case <-stop:
				return
			default:
			}
			for k := range churn {
				table.Put("churn", 0, stable+k, round)
			}
			table.Put("stable", 0, round%stable, round) // changes stay in their slot
			c.Next(0)
			table.Drop("churn") // makes the table sparse: slots move as soon as no walk is on
			c.Next(0)
		}
	})
	defer wg.Wait()
	defer close(stop)
	for range 200 {
		seen := [stable]int{}
		for row := range table.All() {
			if row.Key < stable {
				seen[row.Key]++
			}
		}
		for k, n := range seen {
			if n != 1 {
				t.Fatalf("row %d came %d times", k, n)
			}
		}
	}
}
