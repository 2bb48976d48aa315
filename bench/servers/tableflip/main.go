// Command tableflip-server is an HTTP server that hands its listener to its successor at SIGHUP, as tableflip's own
// example does. Its answers tell the version that it found in a file when it was started.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cloudflare/tableflip"
)

const (
	streamLength = 4 << 20
	// How long connections of the old process may go on.
	drain = time.Minute
)

func main() {
	listen := flag.String("listen", ":8080", "address to listen on")
	version := flag.String("version", "version", "file with the number to answer with")
	pid := flag.String("pid", "", "file for the number of the process that serves")
	flag.Parse()

	upgrader, err := tableflip.New(tableflip.Options{PIDFile: *pid})
	if err != nil {
		log.Fatal(err)
	}
	defer upgrader.Stop()

	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		for range hangups {
			if err := upgrader.Upgrade(); err != nil {
				log.Println("upgrade:", err)
			}
		}
	}()

	listener, err := upgrader.Fds.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	server := http.Server{Handler: handler(*version)}
	go func() {
		if err := server.Serve(listener); err != http.ErrServerClosed {
			log.Println("serve:", err)
		}
	}()
	if err := upgrader.Ready(); err != nil {
		log.Fatal(err)
	}
	<-upgrader.Exit()

	end, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	if err := server.Shutdown(end); err != nil {
		log.Println("shut down:", err)
	}
}

func handler(file string) http.Handler {
	text, err := os.ReadFile(file)
	if err != nil {
		log.Fatal(err)
	}
	line := []byte(strings.TrimSpace(string(text)) + "\n")
	stream := bytes.Repeat(line, streamLength/len(line)+1)[:streamLength]

	mux := http.NewServeMux()
	mux.HandleFunc("/generation", func(w http.ResponseWriter, _ *http.Request) { answer(w, line) })
	mux.HandleFunc("/stream", func(w http.ResponseWriter, _ *http.Request) { answer(w, stream) })
	mux.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			http.Error(w, fmt.Sprintf("read the body: %v", err), http.StatusBadRequest)
			return
		}
		answer(w, line)
	})
	return mux
}

func answer(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if _, err := w.Write(body); err != nil {
		log.Printf("write an answer: %v", err)
	}
}
